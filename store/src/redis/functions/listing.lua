-- Sessions in the order of their clients, for pages.

-- Rows that one call looks at; about a millisecond.
local LOOKED_AT_MAX = 2000

-- now, a node whose sessions alone are wanted or '', whether to go on behind a client, that client, how many at most. Answers
-- whether to go on, the last client that was looked at, and of each session: client, owner, epoch, whether it is persistent, since when.
export('sessions', function(keys, args)
  local partition, now, node, wanted = keys[1], clock(args[1]), args[2], tonumber(args[5])
  local last, found, looked_at = args[4], {}, 0
  if node ~= '' and redis.call('HEXISTS', partition .. ':own', node) == 0 then return { 'ok', 0, '', found } end
  local from = args[3] == '1' and '(' .. last or '-'
  while wanted > 0 and looked_at < LOOKED_AT_MAX do
    local many = node == '' and math.min(wanted, 256) or 256
    local clients = redis.call('ZRANGE', partition .. ':c', from, '+', 'BYLEX', 'LIMIT', 0, many)
    if #clients == 0 then return { 'ok', 0, '', found } end
    local names = {}
    for at, client in ipairs(clients) do names[at] = key(partition, 's', client) end
    local rows = redis.call('MGET', unpack(names))
    for at, client in ipairs(clients) do
      last, looked_at = client, looked_at + 1
      -- A search of its bytes is much cheaper than unpacking a row that is not wanted.
      local row = rows[at] and (node == '' or rows[at]:find(node, 1, true)) and cmsgpack.unpack(rows[at])
      if row and not is_over(row, now) and (node == '' or row[OWNER]:sub(1, 8) == node) then
        for _, field in ipairs({ client, row[OWNER], row[EPOCH], row[EXPIRY] > 0 and 1 or 0, row[SINCE] }) do
          found[#found + 1] = field
        end
        wanted = wanted - 1
        if wanted == 0 then break end
      end
    end
    from = '(' .. last
  end
  return { 'ok', 1, last, found }
end, { 'no-writes' })
