-- Who has what in the stream of a shared subscription's group. Up to its frontier everything was claimed or put on hold at some time, or given back since:
--
--      gone | settled | given back | a member's | settled | on hold | another's |f| never claimed
--
--   g:<stream>  hash    a group's members, connected or resting -> the epoch of their session, and their base: the last of their own count that is settled
--   c:<stream>  hash    member -> the runs of offsets that it holds, in the order in which it claimed them; only those that hold some
--   m:<stream>  zset    the same members -> the lowest offset that they hold; `h` and an offset on hold -> that offset
--   b:<stream>  zset    runs of offsets that were given back, none of which touch: last -> first
--   h:<stream>  zset    offset on hold -> until when (Unix ms)
--
-- The i-th offset that a member holds has the number base + i in its own count. What bounds cut from the front is passed over by whoever comes
-- to it next.

-- A hold, among members, whose names begin with the time.
local function hold_name(offset)
  return 'h' .. string.format('%d', offset)
end

local function pack_member(epoch, base)
  return struct.pack('>I8I8', epoch, base)
end

-- A member, with how many offsets it holds; nil if it is none.
local function load_member(partition, stream, reader)
  local packed = redis.call('HGET', key(partition, 'g', stream), reader)
  if not packed then return nil end
  local member = { reader = reader, packed = packed, runs = {}, holds = 0 }
  member.epoch, member.base = struct.unpack('>I8I8', packed)
  local runs = redis.call('HGET', key(partition, 'c', stream), reader)
  if runs then member.runs = cmsgpack.unpack(runs) end
  for at = 1, #member.runs, 2 do member.holds = member.holds + member.runs[at + 1] - member.runs[at] + 1 end
  return member
end

-- The lowest of its offsets that bounds have not cut; nil if there is none.
local function lowest_held(runs, first)
  local lowest
  for at = 1, #runs, 2 do
    local from = math.max(runs[at], first)
    if runs[at + 1] >= first then lowest = math.min(lowest or from, from) end
  end
  return lowest
end

-- Writes a member down: where it stands if that has changed, and what it holds if `moved` says so.
local function store_member(partition, stream, member, moved, first)
  local packed = pack_member(member.epoch, member.base)
  if packed ~= member.packed then redis.call('HSET', key(partition, 'g', stream), member.reader, packed) end
  if not moved then return end
  if #member.runs == 0 then
    redis.call('HDEL', key(partition, 'c', stream), member.reader)
  else
    redis.call('HSET', key(partition, 'c', stream), member.reader, cmsgpack.pack(member.runs))
  end
  local lowest = lowest_held(member.runs, first)
  if lowest then
    redis.call('ZADD', key(partition, 'm', stream), lowest, member.reader)
  else
    redis.call('ZREM', key(partition, 'm', stream), member.reader)
  end
end

-- It needs nothing up to this number of its own count any more. Gives whether it holds less by that.
local function settle(member, number)
  if number <= member.base then return false end
  local left, settled = {}, number - member.base
  member.base = number
  if settled >= member.holds then
    local held = member.holds > 0
    member.runs, member.holds = left, 0
    return held
  end
  member.holds = member.holds - settled
  for at = 1, #member.runs, 2 do
    local from, to = member.runs[at], member.runs[at + 1]
    local many = math.min(settled, to - from + 1)
    settled = settled - many
    if from + many <= to then
      left[#left + 1] = from + many
      left[#left + 1] = to
    end
  end
  member.runs = left
  return true
end

-- A run of offsets is there to be claimed again.
local function give_back(partition, stream, from, to)
  local given = key(partition, 'b', stream)
  local before = redis.call('ZSCORE', given, from - 1)
  if before then
    redis.call('ZREM', given, from - 1)
    from = tonumber(before)
  end
  local behind = redis.call('ZRANGE', given, to + 1, to + 1, 'BYSCORE')[1]
  if behind then
    redis.call('ZREM', given, behind)
    to = tonumber(behind)
  end
  redis.call('ZADD', given, from, to)
end

-- Gives back all that a member holds.
local function give_all_back(partition, stream, member, first)
  for at = 1, #member.runs, 2 do
    local from, to = math.max(member.runs[at], first), member.runs[at + 1]
    if from <= to then give_back(partition, stream, from, to) end
  end
  local held = member.holds > 0
  member.runs, member.holds = {}, 0
  return held
end

-- The lowest run that was given back, as far as it is there still.
local function lowest_given_back(partition, stream, first)
  local given = key(partition, 'b', stream)
  while true do
    local lowest = redis.call('ZRANGE', given, 0, 0, 'WITHSCORES')
    if not lowest[1] then return nil end
    local from, to = tonumber(lowest[2]), tonumber(lowest[1])
    if to >= first then return math.max(from, first), to end
    redis.call('ZREM', given, to)
  end
end

-- Takes so many offsets from the front of that run.
local function take_given_back(partition, stream, from, to, many)
  local given = key(partition, 'b', stream)
  if from + many > to then
    redis.call('ZREM', given, to)
  elseif many > 0 then
    redis.call('ZADD', given, from + many, to)
  end
end

local function frontier_of(partition, stream, first)
  return math.max(tonumber(redis.call('HGET', key(partition, 'q', stream), 'g') or 0), first - 1)
end

local function set_frontier(partition, stream, frontier)
  redis.call('HSET', key(partition, 'q', stream), 'g', frontier)
end

-- Takes an offset out of those on hold. Gives whether it was one.
local function end_hold(partition, stream, offset)
  redis.call('ZREM', key(partition, 'm', stream), hold_name(offset))
  return redis.call('ZREM', key(partition, 'h', stream), offset) == 1
end

-- Holds that one call ends at most.
local HOLDS_MAX = 1000

-- Gives back what has been on hold for its time. Gives whether there may be more of it.
local function end_holds(partition, stream, first, now)
  local over = redis.call('ZRANGE', key(partition, 'h', stream), '-inf', now, 'BYSCORE', 'LIMIT', 0, HOLDS_MAX)
  for _, offset in ipairs(over) do
    offset = tonumber(offset)
    end_hold(partition, stream, offset)
    if offset >= first then give_back(partition, stream, offset, offset) end
  end
  return #over == HOLDS_MAX
end

-- The lowest offset that a member or a hold has; nil if none has any.
local function lowest_owned(partition, stream, first)
  local owned = key(partition, 'm', stream)
  while true do
    local lowest = redis.call('ZRANGE', owned, 0, 0, 'WITHSCORES')
    local name, offset = lowest[1], tonumber(lowest[2])
    if not name or offset >= first then return offset end
    local runs = redis.call('HGET', key(partition, 'c', stream), name)
    local again = runs and lowest_held(cmsgpack.unpack(runs), first)
    if again then
      redis.call('ZADD', owned, again, name)
    elseif runs then
      redis.call('ZREM', owned, name)
    else
      end_hold(partition, stream, offset)
    end
  end
end

-- Up to here nobody in the group needs anything.
local function settled_in_group(partition, stream, first)
  local mark = frontier_of(partition, stream, first)
  local owned, given = lowest_owned(partition, stream, first), lowest_given_back(partition, stream, first)
  if owned then mark = math.min(mark, owned - 1) end
  if given then mark = math.min(mark, given - 1) end
  return mark
end
