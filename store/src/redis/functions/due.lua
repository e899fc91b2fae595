-- What ends by itself, and what one slot still owes another. Members of `due` by their first byte:
--
--   s<client>            a resting session expires
--   a<stream>            a stream's oldest message grows too old
--   r<topic>             a retained message expires
--   k<lock>              a lock ends
--   l[filter, reader]    a reader was given out, and nobody has said yet that its session holds it
--   L[filter, reader, mark]  a reader must leave; stays until `done` says that it has
--   g<client>            the groups of a session that rests must hear of it; stays until `rested` says that they have
--
-- Whoever sweeps carries out the `L`s and `g`s, each one function on its filter's slot, as often as it takes.

-- Messages that one call cuts for their age at most.
local AGED_MAX = 1000

-- now, how many at most, and the age that a stream allows. Answers the partition's numbers, whether more is due, the leaves,
-- how many messages had grown too old, and of each session whose groups must hear of its rest: client, epoch, and filter, reader and mark of each.
export('sweep', function(keys, args)
  local partition, now, leaves, rests = keys[1], clock(args[1]), {}, {}
  local due = redis.call('ZRANGE', due_key(partition), '-inf', now, 'BYSCORE', 'LIMIT', 0, args[2])
  local more, cuts = #due == tonumber(args[2]), AGED_MAX
  for _, member in ipairs(due) do
    local kind, name = member:sub(1, 1), member:sub(2)
    if kind == 's' then
      redis.call('ZREM', due_key(partition), member)
      local row = load_session(partition, name)
      if row and is_over(row, now) then
        note_expired(partition, name, row)
        discard(partition, name, row, now, leaves)
      end
    elseif kind == 'a' then
      if cuts > 0 then cuts = cuts - cut_aged(partition, name, now, tonumber(args[3]), cuts) end
      more = more or cuts == 0
    elseif kind == 'r' then
      remove_retained(partition, name)
      redis.call('ZREM', due_key(partition), member)
    elseif kind == 'k' then
      remove_lock(partition, name, now)
    elseif kind == 'g' then
      redis.call('ZREM', due_key(partition), member)
      local row = load_session(partition, name)
      if row and row[OWNER] == '' then
        must_tell_groups(partition, name, row, now)
        for _, field in ipairs({ name, row[EPOCH], moves(row, {}, true) }) do rests[#rests + 1] = field end
      end
    else
      local entry = cmsgpack.unpack(name)
      redis.call('ZREM', due_key(partition), member)
      must_leave(partition, entry[1], entry[2], entry[3] or 0, now, leaves)
    end
  end
  forget_old(partition .. ':dead', now)
  forget_old(partition .. ':idle', now)
  local answer, held = { 'ok' }, redis.call('HMGET', count_key(partition), 's', 'b', 'r', 'm', 'w')
  for at = 1, 5 do answer[at + 1] = tonumber(held[at] or 0) end
  answer[7], answer[8], answer[9], answer[10] = more and 1 or 0, leaves, AGED_MAX - cuts, rests
  return answer
end, { 'allow-oom' })

-- Filters, readers and their marks, one after the other, that have left.
export('done', function(keys, args)
  for at = 1, #args, 3 do
    redis.call('ZREM', due_key(keys[1]), leave_entry('L', args[at], args[at + 1], tonumber(args[at + 2])))
  end
  return { 'ok' }
end, { 'allow-oom' })
