-- Which life of a server a partition was last used in. A server that was promoted, or that came back with less than it had,
-- has forgotten some of the epochs that were given out, so the next ones leap ahead of them. In the counts of a partition:
--
--   n           i: the life, as the server names its start; h: the epoch behind which those of this life begin; o: a mark of the
--               partition's birth, which goes with its data; y: until when it is young (Unix ms)

-- Answers life, mark and youth as they stand, so that nothing is written where nothing has to be.
export('life', function(keys)
  local known = redis.call('HMGET', count_key(keys[1]), 'i', 'o', 'y')
  return { 'ok', known[1] or '', known[2] or '', known[3] or '' }
end, { 'no-writes' })

-- Changes nothing, but says that it might: a server that takes no changes now refuses it before it runs.
export('probe', function()
  return { 'ok' }
end)

-- life, a mark, whether one is young that begins with nothing. Whoever has connected calls it before anything else if `life` says
-- another life, or not all; answers the mark that stands.
export('begin', function(keys, args)
  local partition, life = keys[1], args[1]
  local known = redis.call('HMGET', count_key(partition), 'i', 'o', 'e', 'y')
  if known[1] ~= life then
    redis.call('HSET', count_key(partition), 'i', life)
    begin_numbers(partition, leap(tonumber(known[3] or 0)))
  end
  if not known[4] then
    -- What an earlier version has left here was not lost.
    local young = not known[2] and args[3] == '1' and clock('') + YOUNG or 0
    redis.call('HSET', count_key(partition), 'y', string.format('%d', young))
  end
  if not known[2] then redis.call('HSET', count_key(partition), 'o', args[2]) end
  return { 'ok', known[2] or args[2] }
end, { 'allow-oom' })

-- now. Whether what is missing here may be on its way back; asked where nobody has written down yet that the partition begins.
export('youth', function(keys, args)
  local now = clock(args[1])
  return { 'ok', is_young(keys[1], now) and has_just_begun(keys[1], now) and 1 or 0 }
end, { 'allow-oom' })
