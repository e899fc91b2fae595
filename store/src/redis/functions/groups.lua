-- Named groups of clients. A group's members are spread over the partitions of their client ids; the partition of its
-- name counts them.
--
--   x:<group>   zset    members in this partition, all of score 0, so in the order of their bytes
--   x           hash    group -> members in all partitions, and places that someone is about to fill
--
-- Whoever adds takes places first and gives back afterwards what was not needed. If it dies between, the count is too high until
-- someone is refused for it, who counts anew; places that others take in that moment are not in it.

-- group, how many clients come in, how many members there may be.
export('reserve', function(keys, args)
  local places = redis.call('HINCRBY', keys[1] .. ':x', args[1], args[2])
  if places <= tonumber(args[3]) then return { 'ok' } end
  redis.call('HINCRBY', keys[1] .. ':x', args[1], -tonumber(args[2]))
  return { 'full' }
end)

-- group, how many places are free again.
export('give_back', function(keys, args)
  local places = redis.call('HINCRBY', keys[1] .. ':x', args[1], -tonumber(args[2]))
  if places <= 0 then redis.call('HDEL', keys[1] .. ':x', args[1]) end
  return { 'ok' }
end, { 'allow-oom' })

-- group, how many members it has.
export('recount', function(keys, args)
  redis.call('HSET', keys[1] .. ':x', args[1], args[2])
  return { 'ok' }
end, { 'allow-oom' })

-- So many more of them, or fewer. Gives how many members all groups have in this partition.
local function count_members(partition, more)
  return redis.call('HINCRBY', count_key(partition), 'm', string.format('%d', more))
end

-- group, clients of this partition that come in. Answers how many are new, and how many members all groups have here.
export('enrol', function(keys, args)
  local members, new = key(keys[1], 'x', args[1]), 0
  for at = 2, #args do new = new + redis.call('ZADD', members, 0, args[at]) end
  return { 'ok', new, count_members(keys[1], new) }
end)

-- group, clients of this partition that leave. Answers how many were in it.
export('expel', function(keys, args)
  local members, gone = key(keys[1], 'x', args[1]), 0
  for at = 2, #args do gone = gone + redis.call('ZREM', members, args[at]) end
  return { 'ok', gone, count_members(keys[1], -gone) }
end, { 'allow-oom' })

-- group: ends what is here of it.
export('disband', function(keys, args)
  local members = key(keys[1], 'x', args[1])
  local gone = redis.call('ZCARD', members)
  redis.call('UNLINK', members)
  redis.call('HDEL', keys[1] .. ':x', args[1])
  return { 'ok', gone, count_members(keys[1], -gone) }
end, { 'allow-oom' })

-- group, clients of this partition. Answers how many members are here, and how many of the clients are among them.
export('belong', function(keys, args)
  local members, known = key(keys[1], 'x', args[1]), 0
  for at = 2, #args do
    if redis.call('ZSCORE', members, args[at]) then known = known + 1 end
  end
  return { 'ok', redis.call('ZCARD', members), known }
end, { 'no-writes' })

-- group, whether to go on behind a client, that client, how many at most. Answers whether there may be more, and the members.
export('members', function(keys, args)
  local from, most = args[2] == '1' and '(' .. args[3] or '-', tonumber(args[4])
  local found = redis.call('ZRANGE', key(keys[1], 'x', args[1]), from, '+', 'BYLEX', 'LIMIT', 0, most)
  return { 'ok', #found == most and 1 or 0, found }
end, { 'no-writes' })
