-- What the other files share: names of keys, time, numbers that only grow.
--
-- Every function has one key, the partition's name (`hf{17}`), and derives all others from it; so all of them are in one
-- slot. Answers are arrays that begin with a word: ok, fenced, gone, full, kept, none, join, lapsed.

local FORMAT = 3
local NONE = -1
-- A reader that joined a stream and is not written down in its session within this time leaves it again, in ms.
local DOUBT = 60000
-- How long what was said of a node that is gone is remembered, in ms.
local DAY = 86400000

-- The key of something in a partition.
local function key(partition, kind, name)
  return partition .. ':' .. kind .. ':' .. name
end

local function due_key(partition) return partition .. ':due' end
local function count_key(partition) return partition .. ':n' end

-- Unix ms: the server's, so that all nodes live by one clock, or the caller's if it gives one (tests do).
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function clock_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- For how long a partition that began with nothing is young, in ms: sessions that its server has lost are on their way back, and read the streams that
-- others have made anew. Within the first part of that, whoever owes them a message waits until they are there.
local YOUNG, JUST_BEGUN = 60000, 5000

-- Until when it is young. One that does not say has begun this moment.
local function young_until(partition, now)
  return tonumber(redis.call('HGET', count_key(partition), 'y')) or now + YOUNG
end

local function is_young(partition, now)
  local known = redis.call('HGET', count_key(partition), 'y')
  if not known then redis.call('HSET', count_key(partition), 'y', string.format('%d', now + YOUNG)) end
  return now < (tonumber(known) or now + YOUNG)
end

local function has_just_begun(partition, now)
  return now < young_until(partition, now) - YOUNG + JUST_BEGUN
end

-- The same for who may not write, as an answer: 2 if nobody has written down when it began.
local function may_have_just_begun(partition, now)
  if not redis.call('HGET', count_key(partition), 'y') then return 2 end
  return has_just_begun(partition, now) and 1 or 0
end

-- Where the offsets of a stream begin that is made now: behind all that it had before its server lost it, as long as it was given less than a
-- message each microsecond. Below 2^53 until the year 2255.
local function beginning(now)
  return now * 1000
end

-- How far epochs leap, in microseconds, where some that were given out may be forgotten (`life.lua`): ahead of the clock,
-- and ahead of the last one that is known.
local LEAP_CLOCK, LEAP_LAST = 3600000000, 60000000

local function leap(last)
  return math.max(clock_us() + LEAP_CLOCK, last + LEAP_LAST)
end

-- The present life of a partition's server gives out epochs from behind this one on. All up to it may be forgotten, and none behind it.
local function begin_numbers(partition, epoch)
  local text = string.format('%d', epoch)
  redis.call('HSET', count_key(partition), 'e', text, 'h', text)
end

-- The last epoch that is known to have been given out. A partition that knows none may have lost them all.
local function last_number(partition)
  local last = tonumber(redis.call('HGET', count_key(partition), 'e'))
  if last then return last end
  last = leap(0)
  begin_numbers(partition, last)
  return last
end

-- Whether an epoch was given out in the present life, which has forgotten nothing.
local function is_of_this_life(partition, epoch)
  local behind = tonumber(redis.call('HGET', count_key(partition), 'h'))
  return behind ~= nil and epoch > behind
end

-- An epoch: a number that no session of any partition ever had, larger than all before it in this one. Microseconds, but never less
-- than the last one plus one, wherever the clock goes. Below 2^53 until the year 2255.
local function next_number(partition)
  local last = last_number(partition)
  local number = math.max(clock_us(), last + 1)
  -- The next one that is this partition's own.
  number = number + (tonumber(partition:match('{(%d+)}$')) - number) % 256
  redis.call('HSET', count_key(partition), 'e', string.format('%d', number))
  return number
end

-- Epochs that are given out from now on are larger than this one, which was given out before the server lost its data.
local function raise_numbers(partition, number)
  local last = last_number(partition)
  redis.call('HSET', count_key(partition), 'e', string.format('%d', math.max(last, number)))
end

-- A name for a reader of a stream that no other reader in any partition has. It begins with the microsecond of its birth,
-- and ends with some of what names the life of the server that gave it, as the clock of another may show that microsecond again.
local function next_reader(partition)
  local known = redis.call('HMGET', count_key(partition), 'k', 'i')
  local number = math.max(clock_us(), tonumber(known[1] or 0) + 1)
  redis.call('HSET', count_key(partition), 'k', string.format('%d', number))
  local name = struct.pack('>I8I2', number, tonumber(partition:match('{(%d+)}$')))
  return name .. (known[2] or ''):sub(1, 4)
end

-- Whether a reader is so old that it may have been told to leave already. By the server's time, as its name is.
local function is_lapsed(reader)
  return clock_us() - struct.unpack('>I8', reader) >= DOUBT * 1000
end

local function is_group(filter)
  return filter:sub(1, 7) == '$share/'
end

local function export(name, callback, flags)
  redis.register_function { function_name = NAME .. '_' .. name, callback = callback, flags = flags or {} }
end
