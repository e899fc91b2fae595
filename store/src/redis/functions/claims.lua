-- What a shared subscription's group is asked by its members, and by who has a message for one of them (`held.lua`).
--
-- The session's slot has spoken first. Of what a member settled it knows at least as much as the stream, which may not have heard of the last: so each step
-- is told the mark that the session's row has, and settles up to there before it does anything else.

-- A member's epoch once its session rests: larger than the session's, and than no other that will be given out.
local function resting(epoch) return epoch + 1 end

-- What a claim answers, and how much more fits into it.
local function new_page(messages_max, bytes_max)
  return { answer = {}, left = messages_max, bytes = 0, bytes_max = bytes_max }
end

local function is_full(page)
  return page.left <= 0 or (page.bytes >= page.bytes_max and #page.answer > 0)
end

-- Adds a message. One that does not follow the last one comes behind how many numbers have none.
local function add_message(page, number, message)
  if not page.from then page.from = number end
  if page.last and number > page.last + 1 then page.answer[#page.answer + 1] = number - page.last - 1 end
  page.answer[#page.answer + 1], page.last = message, number
  page.left, page.bytes = page.left - 1, page.bytes + #message
end

-- Adds what stands at these offsets, for as long as it fits. Gives how many were added.
local function add_run(page, list, first, weight, length, from, to, number)
  local added, many = 0, to - from + 1
  while added < many and not is_full(page) do
    -- What a message weighs is known on average only; one at least, so that it goes on.
    local enough = math.ceil((page.bytes_max - page.bytes) * length / weight)
    local wanted = math.max(math.min(page.left, many - added, enough, 64), 1)
    local at = from + added - first
    local part = redis.call('LRANGE', list, at, at + wanted - 1)
    if #part == 0 then break end
    for _, message in ipairs(part) do
      if is_full(page) then break end
      add_message(page, number + added, message)
      added = added + 1
    end
  end
  return added
end

-- Behind what a member holds already.
local function hold_run(member, from, many)
  if many == 0 then return end
  local runs = member.runs
  if runs[#runs] == from - 1 then
    runs[#runs] = from + many - 1
  else
    runs[#runs + 1] = from
    runs[#runs + 1] = from + many - 1
  end
  member.holds = member.holds + many
end

-- now, filter, reader, epoch, its session's mark, the last number that it knows, messages_max, bytes_max. Answers the end, the first number, and what the
-- member has from it on: messages, and how many numbers have none.
export('claim', function(keys, args)
  local partition, filter, reader, epoch = keys[1], args[2], args[3], tonumber(args[4])
  local stream = 'f' .. filter
  local member = load_member(partition, stream, reader)
  if not member then return { 'none' } end
  if member.epoch > epoch then return { 'fenced' } end
  member.epoch = epoch
  local first, weight = first_and_bytes(partition, stream)
  local length, list = length_of(partition, stream), key(partition, 'l', stream)
  local settles = settle(member, tonumber(args[5]))
  local known, moved = math.max(tonumber(args[6]), member.base), settles
  -- It knows of claims that this server has lost.
  if known > member.base + member.holds then member.base = known - member.holds end
  local more = end_holds(partition, stream, first, clock(args[1]))
  -- Whether some of what it holds does not fit any more.
  local page, rest = new_page(tonumber(args[7]), tonumber(args[8])), false
  local number = member.base + 1
  for at = 1, #member.runs, 2 do
    local begin, to = member.runs[at], member.runs[at + 1]
    local from = math.max(begin + math.max(known - number + 1, 0), first)
    if from <= to then
      local added = add_run(page, list, first, weight, length, from, to, number + from - begin)
      rest = rest or added <= to - from
    end
    number = number + to - begin + 1
  end
  while not rest and not is_full(page) do
    local from, to = lowest_given_back(partition, stream, first)
    if not from then break end
    local added = add_run(page, list, first, weight, length, from, to, member.base + member.holds + 1)
    -- Nothing stands there, which cannot be: an answer without it rather than a loop that stops the server.
    if added == 0 then break end
    take_given_back(partition, stream, from, to, added)
    hold_run(member, from, added)
    moved = true
  end
  local frontier, last = frontier_of(partition, stream, first), first + length - 1
  if not rest and not is_full(page) and frontier < last then
    local added =
      add_run(page, list, first, weight, length, frontier + 1, last, member.base + member.holds + 1)
    hold_run(member, frontier + 1, added)
    frontier, moved = frontier + added, true
    set_frontier(partition, stream, frontier)
  end
  store_member(partition, stream, member, moved, first)
  more = more or rest or frontier < last or lowest_given_back(partition, stream, first)
  if settles then drop_settled(partition, filter) end
  local answer = { 'ok', (page.last or known) + (more and 1 or 0), page.from or 0 }
  for _, field in ipairs(page.answer) do answer[#answer + 1] = field end
  return answer
end, { 'allow-oom' })

-- now, filter, reader, epoch, its session's mark: a member's session was opened again, perhaps while it was connected. Answers where it stands.
export('resume', function(keys, args)
  local partition, filter, epoch = keys[1], args[2], tonumber(args[4])
  local stream = 'f' .. filter
  local member = load_member(partition, stream, args[3])
  if not member then return { 'none' } end
  if member.epoch > epoch then return { 'ok', member.base } end
  member.epoch = epoch
  local settles = settle(member, tonumber(args[5]))
  store_member(partition, stream, member, settles, first_and_bytes(partition, stream))
  if settles then drop_settled(partition, filter) end
  return { 'ok', member.base }
end, { 'allow-oom' })

-- now, filter, reader, epoch, its session's mark: a member's connection has ended. It claims nothing until it is resumed. Something is written also if it has been
-- told before (`leave` says why).
export('rest', function(keys, args)
  local partition, filter, epoch = keys[1], args[2], tonumber(args[4])
  local stream = 'f' .. filter
  redis.call('HINCRBY', count_key(partition), 'b', 0)
  local member = load_member(partition, stream, args[3])
  if not member or member.epoch > epoch then return { 'none', stream_bytes(partition) } end
  member.epoch = resting(epoch)
  local first = first_and_bytes(partition, stream)
  local settles = settle(member, tonumber(args[5]))
  local held = give_all_back(partition, stream, member, first)
  store_member(partition, stream, member, settles or held, first)
  if settles then drop_settled(partition, filter) end
  return { 'ok', stream_bytes(partition) }
end, { 'allow-oom' })

-- As `append`, and for how many ms nobody may claim it.
export('hold', function(keys, args)
  local partition, stream, now = keys[1], args[2], clock(args[1])
  local answer = append(keys, args)
  if answer[1] ~= 'ok' then return answer end
  local at = answer[2]
  local first = first_and_bytes(partition, stream)
  if at < first then return answer end
  local frontier = frontier_of(partition, stream, first)
  -- Those before it that nobody has claimed stay there to be claimed.
  if frontier < at - 1 then give_back(partition, stream, frontier + 1, at - 1) end
  set_frontier(partition, stream, at)
  redis.call('ZADD', key(partition, 'h', stream), now + tonumber(args[8]), at)
  redis.call('ZADD', key(partition, 'm', stream), at, hold_name(at))
  return answer
end)

-- filter, offset, whether a member has it.
export('end_hold', function(keys, args)
  local partition, filter, offset = keys[1], args[1], tonumber(args[2])
  local stream = 'f' .. filter
  if end_hold(partition, stream, offset) then
    local first = first_and_bytes(partition, stream)
    if args[3] == '0' and offset >= first then give_back(partition, stream, offset, offset) end
    drop_settled(partition, filter)
  end
  return { 'ok', stream_bytes(partition) }
end, { 'allow-oom' })
