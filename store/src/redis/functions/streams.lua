-- Streams: a list of encoded messages without gaps, what they weigh, and who has yet to read them.
--
--   q:<stream>  hash    f: offset of the list's first message, b: bytes, t: empty places in the list, g: the last offset that was ever
--                       claimed or put on hold in a group
--   l:<stream>  list    the messages; of a device also empty places, whose message a newer one has replaced, never at the ends
--   z:<stream>  hash    of a device: collapse key -> offset of the newest message with it, which may be gone
--   m:<stream>  zset    reader -> the last offset it has settled; of a group's stream `held.lua` says
--   w           zset    stream -> bytes, while it holds messages
--   f           set     filters that have a stream
--
-- A stream's name is `f` and the filter, or `d` and the client; the latter has no readers here: its session's row, in the
-- same slot, says how far it was read, and the stream exists only while it holds messages.

-- How many places a stream may have for each message that it may hold: a message that stays keeps the empty places behind it.
local PLACES = 16

-- Also how many places are empty.
local function first_and_bytes(partition, stream)
  local row = redis.call('HMGET', key(partition, 'q', stream), 'f', 'b', 't')
  if not row[1] then return nil end
  return tonumber(row[1]), tonumber(row[2]), tonumber(row[3] or 0)
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

-- Empty places before the first message, as far as one look shows.
local function leading_gaps(list)
  if redis.call('LINDEX', list, 0) ~= '' then return 0 end
  local places, count = redis.call('LRANGE', list, 0, 255), 0
  while places[count + 1] == '' do count = count + 1 end
  return count
end

-- Takes messages from the front for as long as `goes(bytes, messages, places)` says so; nil for `goes`: `count` places. Then
-- the empty places that stand first. Gives how many messages went.
local function trim(partition, stream, first, bytes, gaps, count, goes)
  local list = key(partition, 'l', stream)
  local places, left, empty, gone, lost = redis.call('LLEN', list), bytes, gaps, 0, 0
  while places > 0 do
    local many = empty > 0 and leading_gaps(list) or 0
    if many == 0 then
      many = goes and 1 or math.min(count - gone, 256)
      if many <= 0 or (goes and not goes(left, places - empty, places)) then break end
    end
    local taken = redis.call('LPOP', list, many)
    for _, message in ipairs(taken) do
      left = left - #message
      if message == '' then empty = empty - 1 else lost = lost + 1 end
    end
    gone, places = gone + #taken, places - #taken
  end
  if gone > 0 then
    redis.call('HSET', key(partition, 'q', stream), 'f', first + gone)
    weigh(partition, stream, bytes, left)
  end
  if empty ~= gaps then redis.call('HSET', key(partition, 'q', stream), 't', empty) end
  return lost
end

local function drop_stream(partition, stream)
  local _, bytes = first_and_bytes(partition, stream)
  if not bytes then return end
  weigh(partition, stream, bytes, 0)
  for _, kind in ipairs({ 'q', 'l', 'm', 'g', 'z', 'c', 'b', 'h' }) do redis.call('DEL', key(partition, kind, stream)) end
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
  local first, bytes, gaps = first_and_bytes(partition, stream)
  if not first then return 0 end
  local list = key(partition, 'l', stream)
  local length = length_of(partition, stream)
  local lost = trim(partition, stream, first, bytes, gaps, 0, function(_, _, left)
    return length - left < most and ends_ms(redis.call('LINDEX', list, 0), age_max) <= now
  end)
  local oldest = redis.call('LINDEX', list, 0)
  if oldest then watch_age(partition, stream, oldest, age_max) end
  return lost
end

-- Where the newest message with a collapse key waits, and what it weighs.
local function find_collapsed(partition, stream, first, collapse)
  local at = tonumber(redis.call('HGET', key(partition, 'z', stream), collapse) or 0)
  if at < first then return nil, 0 end
  return at, #redis.call('LINDEX', key(partition, 'l', stream), at - first)
end

-- Writes down where the newest message with a collapse key is, and forgets one or two whose message is gone, so that the hash holds
-- little more than waits.
local function remember_collapsed(partition, stream, first, collapse, at)
  local places = key(partition, 'z', stream)
  redis.call('HSET', places, collapse, at)
  local some = redis.call('HRANDFIELD', places, 2, 'WITHVALUES')
  for place = 1, #some, 2 do
    if tonumber(some[place + 1]) < first then redis.call('HDEL', places, some[place]) end
  end
end

-- Everything up to here is settled with everyone; nil if nobody has a mark.
local function settled(partition, filter, first)
  if is_group(filter) then return settled_in_group(partition, 'f' .. filter, first) end
  local lowest = redis.call('ZRANGE', key(partition, 'm', 'f' .. filter), 0, 0, 'WITHSCORES')
  return tonumber(lowest[2])
end

-- Lets go of what everyone has settled.
local function drop_settled(partition, filter)
  local stream = 'f' .. filter
  local first, bytes, gaps = first_and_bytes(partition, stream)
  local mark = settled(partition, filter, first) or 0
  if mark >= first then trim(partition, stream, first, bytes, gaps, mark + 1 - first) end
end

-- The same, unless readers may still come who have not: a young partition keeps it for them, as far as a stream's bounds allow. A group's message is
-- one member's, and nobody else waits for it.
local function trim_settled(partition, filter, now)
  if is_group(filter) or not is_young(partition, now) then drop_settled(partition, filter) end
end

-- now, stream, message, a stream's bounds (messages, bytes, age; whether it keeps what it has when it is full), and the collapse
-- key if there is one. A device's stream is made if its session has a place in it. Answers how many messages gave way, too; where there is
-- no stream, whether its readers may be on their way back.
local function append(keys, args)
  local partition, stream, message, now = keys[1], args[2], args[3], clock(args[1])
  local messages_max, bytes_max = tonumber(args[4]), tonumber(args[5])
  local is_device = stream:sub(1, 1) == 'd'
  if is_device then
    local row = load_session(partition, stream:sub(2))
    if not row or is_over(row, now) or row[DEVICE] == NONE then return { 'none', 0 } end
    if #message > bytes_max then return { 'full' } end
    redis.call('HSETNX', key(partition, 'q', stream), 'f', row[DEVICE] + 1)
    redis.call('HSETNX', key(partition, 'q', stream), 'b', 0)
  elseif redis.call('EXISTS', key(partition, 'q', stream)) == 0 then
    return { 'none', is_young(partition, now) and has_just_begun(partition, now) and 1 or 0 }
  elseif #message > bytes_max then
    return { 'full' }
  end
  local list, collapse = key(partition, 'l', stream), is_device and args[8]
  local first, bytes, gaps = first_and_bytes(partition, stream)
  local older, older_bytes
  if collapse then older, older_bytes = find_collapsed(partition, stream, first, collapse) end
  local weight = bytes + #message - (older and older_bytes or 0)
  if args[7] == '1' then
    local messages = redis.call('LLEN', list) - gaps + (older and 0 or 1)
    if not is_device and (messages > messages_max or weight > bytes_max) then
      -- What a young partition keeps goes first.
      drop_settled(partition, stream:sub(2))
      first, bytes, gaps = first_and_bytes(partition, stream)
      messages, weight = redis.call('LLEN', list) + 1, bytes + #message
    end
    if messages > messages_max or weight > bytes_max then return { 'kept' } end
  end
  if older then
    redis.call('LSET', list, older - first, '')
    gaps = gaps + 1
    redis.call('HSET', key(partition, 'q', stream), 't', gaps)
  end
  local places = redis.call('RPUSH', list, message)
  local at, lost = first + places - 1, 0
  weigh(partition, stream, bytes, weight)
  watch_age(partition, stream, message, tonumber(args[6]))
  if collapse then remember_collapsed(partition, stream, first, collapse, at) end
  local is_full = places - gaps > messages_max or weight > bytes_max or places > messages_max * PLACES
  if is_full and not is_device then
    drop_settled(partition, stream:sub(2))
    first, weight, gaps = first_and_bytes(partition, stream)
    places = redis.call('LLEN', list)
    is_full = places > messages_max or weight > bytes_max
  end
  if is_full or older == first then
    lost = trim(partition, stream, first, weight, gaps, 0, function(left, messages, all)
      return messages > messages_max or left > bytes_max or all > messages_max * PLACES
    end)
  end
  return { 'ok', at, stream_bytes(partition), lost }
end

export('append', append)

-- now, stream: whether an append would find it.
export('exists', function(keys, args)
  local partition, stream = keys[1], args[2]
  if stream:sub(1, 1) == 'f' then return { 'ok', redis.call('EXISTS', key(partition, 'q', stream)) } end
  local row = load_session(partition, stream:sub(2))
  return { 'ok', (row and not is_over(row, clock(args[1])) and row[DEVICE] ~= NONE) and 1 or 0 }
end, { 'no-writes' })

-- stream, after, messages_max, bytes_max. Answers the end, the first offset, and what is there from it on: messages, and
-- numbers of places without one.
export('read', function(keys, args)
  local partition, stream, after = keys[1], args[1], tonumber(args[2])
  local first, weight, gaps = first_and_bytes(partition, stream)
  if not first then
    local row = stream:sub(1, 1) == 'd' and load_session(partition, stream:sub(2))
    return { 'ok', row and math.max(row[DEVICE], 0) or 0, 0 }
  end
  local length = length_of(partition, stream)
  local from, last, bytes = math.max(after + 1, first), first + length - 1, 0
  local answer, left, passed = { 'ok', last, from }, tonumber(args[3]), 0
  while left > 0 and from <= last do
    -- What a message weighs is known on average only; one at least, so that it goes on.
    local enough = math.ceil((tonumber(args[4]) - bytes) * length / weight)
    local many = math.max(math.min(left, enough, 64), 1)
    if gaps > 0 then many = math.max(many, math.min(passed, 4096)) end
    local part = redis.call('LRANGE', key(partition, 'l', stream), from - first, from - first + many - 1)
    for _, message in ipairs(part) do
      if message == '' then
        passed = passed + 1
      else
        if left == 0 or (bytes >= tonumber(args[4]) and #answer > 3) then return answer end
        if passed > 0 then answer[#answer + 1], passed = passed, 0 end
        bytes, left = bytes + #message, left - 1
        answer[#answer + 1] = message
      end
    end
    from = from + many
  end
  return answer
end, { 'no-writes' })

-- now, filter, reader, epoch, whether it has read the stream before: one more reader, from the stream's end on. One that comes back to a young
-- partition has been a reader all along, and reads what the others' return has found. A group's member counts for itself, from a number that is larger than
-- all that it had before. Answers its mark. One that comes after its leave would read for ever.
export('join', function(keys, args)
  local partition, filter, reader, now = keys[1], args[2], args[3], clock(args[1])
  if is_lapsed(reader) then return { 'lapsed' } end
  local stream = 'f' .. filter
  if redis.call('EXISTS', key(partition, 'q', stream)) == 0 then
    redis.call('HSET', key(partition, 'q', stream), 'f', string.format('%d', beginning(now) + 1), 'b', 0)
    redis.call('SADD', partition .. ':f', filter)
  end
  if is_group(filter) then
    redis.call('HSETNX', key(partition, 'g', stream), reader, pack_member(tonumber(args[4]), beginning(now)))
    return { 'ok', load_member(partition, stream, reader).base }
  end
  local from = first_and_bytes(partition, stream) - 1
  if not is_young(partition, now) or args[5] ~= '1' then from = from + length_of(partition, stream) end
  redis.call('ZADD', key(partition, 'm', stream), 'NX', string.format('%d', from), reader)
  return { 'ok', tonumber(redis.call('ZSCORE', key(partition, 'm', stream), reader)) }
end)

-- filter, reader: whether the stream still knows it. Answers where it stands.
export('reads', function(keys, args)
  local stream, mark = 'f' .. args[1], nil
  if is_group(args[1]) then
    local member = load_member(keys[1], stream, args[2])
    mark = member and member.base
  else
    mark = tonumber(redis.call('ZSCORE', key(keys[1], 'm', stream), args[2]))
  end
  return mark and { 'ok', mark } or { 'none' }
end, { 'no-writes' })

-- Moves a reader's mark, forward and within the stream. Gives where it is then; nil if it is none.
local function move_mark(partition, stream, reader, to)
  local mark = tonumber(redis.call('ZSCORE', key(partition, 'm', stream), reader))
  local first = first_and_bytes(partition, stream)
  if not mark or not first then return nil end
  to = math.min(to, first + length_of(partition, stream) - 1)
  if to <= mark then return mark end
  redis.call('ZADD', key(partition, 'm', stream), string.format('%d', to), reader)
  return to
end

-- Settles what a group's member holds up to a number of its own. Gives where it stands then; nil if it is none under this epoch.
local function settle_for(partition, stream, reader, epoch, number)
  local member = load_member(partition, stream, reader)
  if not member or member.epoch > epoch then return nil end
  local settles = settle(member, number)
  store_member(partition, stream, member, settles, first_and_bytes(partition, stream))
  return member.base
end

-- now, filter, reader, epoch, how far it settled. Answers where its mark is then.
export('advance', function(keys, args)
  local partition, filter, reader, to = keys[1], args[2], args[3], tonumber(args[5])
  local stream, mark = 'f' .. filter, nil
  if is_group(filter) then
    mark = settle_for(partition, stream, reader, tonumber(args[4]), to)
  else
    mark = move_mark(partition, stream, reader, to)
  end
  if not mark then return { 'none' } end
  trim_settled(partition, filter, clock(args[1]))
  return { 'ok', mark, stream_bytes(partition) }
end, { 'allow-oom' })

-- now, filter, reader, its session's mark: it reads no longer; the last one takes the stream with it. Something is written even if it has left before: who then
-- waits for the replicas waits for that leave too, of which they may not have heard.
export('leave', function(keys, args)
  local partition, filter, reader = keys[1], args[2], args[3]
  local stream = 'f' .. filter
  redis.call('HINCRBY', count_key(partition), 'b', 0)
  local first = first_and_bytes(partition, stream)
  if not first then return { 'none', stream_bytes(partition) } end
  local member, readers = is_group(filter) and load_member(partition, stream, reader), 'm'
  if member then
    settle(member, tonumber(args[4]))
    give_all_back(partition, stream, member, first)
    store_member(partition, stream, member, true, first)
  end
  if is_group(filter) then
    readers = 'g'
    redis.call('HDEL', key(partition, 'g', stream), reader)
  else
    redis.call('ZREM', key(partition, 'm', stream), reader)
  end
  if redis.call('EXISTS', key(partition, readers, stream)) == 0 then
    drop_stream(partition, stream)
  else
    trim_settled(partition, filter, clock(args[1]))
  end
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
  local first, bytes, gaps = first_and_bytes(partition, stream)
  if not first then return { 'ok', 0, stream_bytes(partition) } end
  local enough = bytes - tonumber(args[2])
  local lost = trim(partition, stream, first, bytes, gaps, 0, function(left) return left > enough end)
  return { 'ok', lost, stream_bytes(partition) }
end, { 'allow-oom' })
