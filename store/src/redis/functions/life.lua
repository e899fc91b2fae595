-- Which life of a server a partition was last used in. A server that was promoted, or that came back with less than it had,
-- has forgotten some of the epochs that were given out, so the next ones leap ahead of them. In the counts of a partition:
--
--   n           i: the life, as the server names its start; h: the epoch behind which those of this life begin; o: a mark of the
--               partition's birth, which goes with its data; y: until when it is young (Unix ms)

-- Answers life and mark as they stand, so that nothing is written where nothing has to be.
export('life', function(keys)
  local known = redis.call('HMGET', count_key(keys[1]), 'i', 'o')
  return { 'ok', known[1] or '', known[2] or '' }
end, { 'no-writes' })

-- Changes nothing, but says that it might: a server that takes no changes now refuses it before it runs.
export('probe', function()
  return { 'ok' }
end)

-- life, a mark, for how many ms one is young that begins with nothing. Whoever has connected calls it before anything else if `life` says
-- another life; answers the mark that stands.
export('begin', function(keys, args)
  local partition, life = keys[1], args[1]
  local known = redis.call('HMGET', count_key(partition), 'i', 'o', 'e')
  if known[1] ~= life then
    redis.call('HSET', count_key(partition), 'i', life)
    begin_numbers(partition, leap(tonumber(known[3] or 0)))
  end
  if not known[2] then
    local young = string.format('%d', tonumber(args[3]) > 0 and clock('') + tonumber(args[3]) or 0)
    redis.call('HSET', count_key(partition), 'o', args[2])
    redis.call('HSETNX', count_key(partition), 'y', young)
  end
  return { 'ok', known[2] or args[2] }
end, { 'allow-oom' })
