-- What the other files share: names of keys, time, numbers that only grow.
--
-- Every function has one key, the partition's name (`hf{17}`), and derives all others from it; so all of them are in one
-- slot. Answers are arrays that begin with a word: ok, fenced, gone, full, kept, none, join, lapsed.

local FORMAT = 2
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

-- A number that no session of this partition ever had, larger than all before it: microseconds, but never less than
-- the last one plus one, wherever the clock goes. Below 2^53 until the year 2255.
local function next_number(partition)
  local time = redis.call('TIME')
  local last = tonumber(redis.call('HGET', count_key(partition), 'e') or 0)
  local number = math.max(time[1] * 1000000 + time[2], last + 1)
  redis.call('HSET', count_key(partition), 'e', string.format('%d', number))
  return number
end

-- Numbers that are given out from now on are larger than this one, which was given out before the server lost its data.
local function raise_numbers(partition, number)
  local last = tonumber(redis.call('HGET', count_key(partition), 'e') or 0)
  if number > last then redis.call('HSET', count_key(partition), 'e', string.format('%d', number)) end
end

-- A name for a reader of a stream that no other reader in any partition has. It begins with the microsecond of its birth.
local function next_reader(partition)
  return struct.pack('>I8I2', next_number(partition), tonumber(partition:match('{(%d+)}$')))
end

-- Whether a reader is so old that it may have been told to leave already. By the server's time, as its name is.
local function is_lapsed(reader)
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2] - struct.unpack('>I8', reader) >= DOUBT * 1000
end

local function is_group(filter)
  return filter:sub(1, 7) == '$share/'
end

local function export(name, callback, flags)
  redis.register_function { function_name = NAME .. '_' .. name, callback = callback, flags = flags or {} }
end
