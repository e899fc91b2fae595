-- Streams: a list of encoded messages without gaps, what they weigh, and who has yet to read them.
--
--   q:<stream>  hash    f: offset of the list's first message, b: bytes, g: what a group's members left behind (-1: nothing)
--   l:<stream>  list    the messages
--   m:<stream>  zset    reader -> the last offset it has settled; of a group only the connected members
--   g:<stream>  hash    a group's members, connected or resting -> the epoch of their session
--   w           zset    stream -> bytes, while it holds messages
--   f           set     filters that have a stream
--
-- A stream's name is `f` and the filter, or `d` and the client; the latter has no readers here: its session's row, in the
-- same slot, says how far it was read, and the stream exists only while it holds messages.

local function first_and_bytes(partition, stream)
  local row = redis.call('HMGET', key(partition, 'q', stream), 'f', 'b')
  if not row[1] then return nil end
  return tonumber(row[1]), tonumber(row[2])
end

local function length_of(partition, stream)
  return redis.call('LLEN', key(partition, 'l', stream))
end

local function stream_bytes(partition)
  return tonumber(redis.call('HGET', count_key(partition), 'b') or 0)
end

local function weigh(partition, stream, before, after)
  if before == after then return end
  redis.call('HSET', key(partition, 'q', stream), 'b', after)
  redis.call('HINCRBY', count_key(partition), 'b', after - before)
  if after > 0 then
    redis.call('ZADD', partition .. ':w', after, stream)
  else
    redis.call('ZREM', partition .. ':w', stream)
  end
end

-- Takes messages from the front for as long as `goes(bytes, length)` says so; nil for `goes`: `count` of them.
local function trim(partition, stream, first, bytes, count, goes)
  local list = key(partition, 'l', stream)
  local length, left, gone = redis.call('LLEN', list), bytes, 0
  while length > 0 do
    local many = goes and 1 or math.min(count - gone, 256)
    if many <= 0 or (goes and not goes(left, length)) then break end
    local taken = redis.call('LPOP', list, many)
    for _, message in ipairs(taken) do left = left - #message end
    gone, length = gone + #taken, length - #taken
  end
  if gone > 0 then
    redis.call('HSET', key(partition, 'q', stream), 'f', first + gone)
    weigh(partition, stream, bytes, left)
  end
  return gone
end

local function drop_stream(partition, stream)
  local _, bytes = first_and_bytes(partition, stream)
  if not bytes then return end
  weigh(partition, stream, bytes, 0)
  for _, kind in ipairs({ 'q', 'l', 'm', 'g' }) do redis.call('DEL', key(partition, kind, stream)) end
  redis.call('ZREM', due_key(partition), 'a' .. stream)
  if stream:sub(1, 1) == 'f' then redis.call('SREM', partition .. ':f', stream:sub(2)) end
end

-- When a message has reached the age that a stream allows. Its encoding has the time of publishing behind flags and id.
local function ends_ms(message, age_max)
  local low, high = struct.unpack('<I4I4', message, 10)
  return math.max(high * 4294967296 + low + age_max, 1)
end

local function watch_age(partition, stream, oldest, age_max)
  redis.call('ZADD', due_key(partition), 'NX', ends_ms(oldest, age_max), 'a' .. stream)
end

-- Cuts at most so many messages; what is left of them is due at once. Gives how many it cut.
local function cut_aged(partition, stream, now, age_max, most)
  redis.call('ZREM', due_key(partition), 'a' .. stream)
  local first, bytes = first_and_bytes(partition, stream)
  if not first then return 0 end
  local list = key(partition, 'l', stream)
  local length = length_of(partition, stream)
  local gone = trim(partition, stream, first, bytes, 0, function(_, left)
    return length - left < most and ends_ms(redis.call('LINDEX', list, 0), age_max) <= now
  end)
  local oldest = redis.call('LINDEX', list, 0)
  if oldest then watch_age(partition, stream, oldest, age_max) end
  return gone
end

-- Appends to a stream that exists; gives its end.
local function push(partition, stream, message, messages_max, bytes_max, age_max)
  local first, bytes = first_and_bytes(partition, stream)
  local length = redis.call('RPUSH', key(partition, 'l', stream), message)
  weigh(partition, stream, bytes, bytes + #message)
  watch_age(partition, stream, message, age_max)
  if length > messages_max or bytes + #message > bytes_max then
    trim(partition, stream, first, bytes + #message, 0, function(left, long)
      return long > messages_max or left > bytes_max
    end)
  end
  return first + length - 1
end

-- Everything up to here is settled with everyone; nil if nobody has a mark.
local function settled(partition, stream, left)
  local lowest = redis.call('ZRANGE', key(partition, 'm', stream), 0, 0, 'WITHSCORES')[2]
  lowest = lowest and tonumber(lowest)
  if left and left ~= NONE then return lowest and math.min(lowest, left) or left end
  return lowest
end

local function left_behind(partition, filter)
  if not is_group(filter) then return nil end
  return tonumber(redis.call('HGET', key(partition, 'q', 'f' .. filter), 'g') or NONE)
end

local function trim_settled(partition, filter)
  local stream = 'f' .. filter
  local first, bytes = first_and_bytes(partition, stream)
  local mark = settled(partition, stream, left_behind(partition, filter)) or 0
  if mark >= first then trim(partition, stream, first, bytes, mark + 1 - first) end
end

-- Where a group stands. A mark from before a cut stands where the cut ended.
local function group_cursor(partition, filter)
  local first = first_and_bytes(partition, 'f' .. filter)
  return math.max(settled(partition, 'f' .. filter, left_behind(partition, filter)) or 0, first - 1)
end

-- Takes a connected member out of a group. What it has not settled is left behind, and the last one leaves word of where
-- the group stands.
local function disconnect(partition, filter, reader, mark, stream_end)
  local stream = 'f' .. filter
  redis.call('ZREM', key(partition, 'm', stream), reader)
  if mark < stream_end or redis.call('EXISTS', key(partition, 'm', stream)) == 0 then
    local left = left_behind(partition, filter)
    redis.call('HSET', key(partition, 'q', stream), 'g', left == NONE and mark or math.min(left, mark))
  end
end

-- now, stream, message, and a stream's bounds. A device's stream is made if its session has a place in it.
export('append', function(keys, args)
  local partition, stream, message = keys[1], args[2], args[3]
  local bytes_max = tonumber(args[5])
  if stream:sub(1, 1) == 'd' then
    local row = load_session(partition, stream:sub(2))
    if not row or is_over(row, clock(args[1])) or row[DEVICE] == NONE then return { 'none' } end
    if #message > bytes_max then return { 'full' } end
    redis.call('HSETNX', key(partition, 'q', stream), 'f', row[DEVICE] + 1)
    redis.call('HSETNX', key(partition, 'q', stream), 'b', 0)
  elseif redis.call('EXISTS', key(partition, 'q', stream)) == 0 then
    return { 'none' }
  elseif #message > bytes_max then
    return { 'full' }
  end
  local at = push(partition, stream, message, tonumber(args[4]), bytes_max, tonumber(args[6]))
  return { 'ok', at, stream_bytes(partition) }
end)

-- now, stream: whether an append would find it.
export('exists', function(keys, args)
  local partition, stream = keys[1], args[2]
  if stream:sub(1, 1) == 'f' then return { 'ok', redis.call('EXISTS', key(partition, 'q', stream)) } end
  local row = load_session(partition, stream:sub(2))
  return { 'ok', (row and not is_over(row, clock(args[1])) and row[DEVICE] ~= NONE) and 1 or 0 }
end, { 'no-writes' })

-- stream, after, messages_max, bytes_max. Answers the end, the first offset, the messages.
export('read', function(keys, args)
  local partition, stream, after = keys[1], args[1], tonumber(args[2])
  local first, weight = first_and_bytes(partition, stream)
  if not first then
    local row = stream:sub(1, 1) == 'd' and load_session(partition, stream:sub(2))
    return { 'ok', row and math.max(row[DEVICE], 0) or 0, 0 }
  end
  local length = length_of(partition, stream)
  local from, last, bytes = math.max(after + 1, first), first + length - 1, 0
  local answer, left = { 'ok', last, from }, tonumber(args[3])
  while left > 0 and from <= last do
    -- What a message weighs is known on average only; one at least, so that it goes on.
    local enough = math.ceil((tonumber(args[4]) - bytes) * length / weight)
    local many = math.max(math.min(left, enough, 64), 1)
    local part = redis.call('LRANGE', key(partition, 'l', stream), from - first, from - first + many - 1)
    for _, message in ipairs(part) do
      if bytes >= tonumber(args[4]) and #answer > 3 then return answer end
      bytes = bytes + #message
      answer[#answer + 1] = message
    end
    from, left = from + many, left - many
  end
  return answer
end, { 'no-writes' })

-- filter, reader, epoch: one more reader, from the stream's end on. Answers its mark and where it is told to stand. One that
-- comes after its leave would read for ever.
export('join', function(keys, args)
  local partition, filter, reader = keys[1], args[1], args[2]
  if is_lapsed(reader) then return { 'lapsed' } end
  local stream = 'f' .. filter
  if redis.call('EXISTS', key(partition, 'q', stream)) == 0 then
    redis.call('HSET', key(partition, 'q', stream), 'f', 1, 'b', 0)
    if is_group(filter) then redis.call('HSET', key(partition, 'q', stream), 'g', NONE) end
    redis.call('SADD', partition .. ':f', filter)
  end
  local last = first_and_bytes(partition, stream) + length_of(partition, stream) - 1
  redis.call('ZADD', key(partition, 'm', stream), 'NX', last, reader)
  local mark = tonumber(redis.call('ZSCORE', key(partition, 'm', stream), reader))
  if not is_group(filter) then return { 'ok', mark, mark } end
  redis.call('HSET', key(partition, 'g', stream), reader, args[3])
  return { 'ok', mark, group_cursor(partition, filter) }
end)

-- filter: where its group stands.
export('stand', function(keys, args)
  if not first_and_bytes(keys[1], 'f' .. args[1]) then return { 'none' } end
  return { 'ok', group_cursor(keys[1], args[1]) }
end, { 'no-writes' })

-- filter, reader, epoch, how far it settled, whether its connection ended. Answers where its mark is then.
export('advance', function(keys, args)
  local partition, filter, reader = keys[1], args[1], args[2]
  local stream = 'f' .. filter
  local mark = redis.call('ZSCORE', key(partition, 'm', stream), reader)
  local first = first_and_bytes(partition, stream)
  if not mark or not first then return { 'none' } end
  mark = tonumber(mark)
  if is_group(filter) then
    local epoch = tonumber(redis.call('HGET', key(partition, 'g', stream), reader) or 0)
    if epoch > tonumber(args[3]) then return { 'none' } end
  end
  local last = first + length_of(partition, stream) - 1
  local to = math.min(tonumber(args[4]), last)
  if to > mark then
    redis.call('ZADD', key(partition, 'm', stream), to, reader)
    mark = to
  end
  if args[5] == '1' and is_group(filter) then disconnect(partition, filter, reader, mark, last) end
  trim_settled(partition, filter)
  return { 'ok', mark, stream_bytes(partition) }
end, { 'allow-oom' })

-- filter, reader, epoch, whether its session is persistent: a member's session was opened again. Answers where it reads on.
export('resume', function(keys, args)
  local partition, filter, reader = keys[1], args[1], args[2]
  local stream = 'f' .. filter
  local known = redis.call('HGET', key(partition, 'g', stream), reader)
  if not known then return { 'none' } end
  local cursor = group_cursor(partition, filter)
  if tonumber(known) > tonumber(args[3]) then return { 'ok', cursor } end
  redis.call('HSET', key(partition, 'g', stream), reader, args[3])
  redis.call('ZADD', key(partition, 'm', stream), cursor, reader)
  redis.call('HSET', key(partition, 'q', stream), 'g', args[4] == '1' and NONE or cursor)
  return { 'ok', cursor }
end, { 'allow-oom' })

-- filter, reader: it reads no longer; the last one takes the stream with it.
export('leave', function(keys, args)
  local partition, filter, reader = keys[1], args[1], args[2]
  local stream = 'f' .. filter
  local first = first_and_bytes(partition, stream)
  if not first then return { 'none', stream_bytes(partition) } end
  if is_group(filter) then
    local mark = redis.call('ZSCORE', key(partition, 'm', stream), reader)
    if mark then
      local last = first + length_of(partition, stream) - 1
      disconnect(partition, filter, reader, tonumber(mark), last)
    end
    redis.call('HDEL', key(partition, 'g', stream), reader)
    if redis.call('EXISTS', key(partition, 'g', stream)) == 0 then drop_stream(partition, stream) end
  else
    redis.call('ZREM', key(partition, 'm', stream), reader)
    if redis.call('EXISTS', key(partition, 'm', stream)) == 0 then drop_stream(partition, stream) end
  end
  if first_and_bytes(partition, stream) then trim_settled(partition, filter) end
  return { 'ok', stream_bytes(partition) }
end, { 'allow-oom' })

-- The heaviest stream, what it weighs, and what the next one weighs.
export('heaviest', function(keys)
  local top = redis.call('ZREVRANGE', keys[1] .. ':w', 0, 1, 'WITHSCORES')
  return { 'ok', top[1] or '', tonumber(top[2] or 0), tonumber(top[4] or 0), stream_bytes(keys[1]) }
end, { 'no-writes' })

-- stream, bytes: cuts its oldest messages until so many bytes are free. Answers how many went.
export('cut', function(keys, args)
  local partition, stream = keys[1], args[1]
  local first, bytes = first_and_bytes(partition, stream)
  if not first then return { 'ok', 0, stream_bytes(partition) } end
  local enough = bytes - tonumber(args[2])
  local gone = trim(partition, stream, first, bytes, 0, function(left) return left > enough end)
  return { 'ok', gone, stream_bytes(partition) }
end, { 'allow-oom' })
