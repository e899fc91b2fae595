-- What is asked of a session. All of it is on the session's slot; what other slots must do is in the answer, and in `due`
-- until it is done.
--
--   own         hash    node -> how many sessions it owns in this partition
--   e           list    sessions that expired: client, epoch, when; until someone takes them
--   n           a: until when those that expire are kept

-- How long until a leave that was handed out is handed out again, in ms.
local AGAIN = 5000

-- The row if `epoch` is its current one and it is not over; else why not.
local function held_under(partition, client, epoch, now)
  local row = load_session(partition, client)
  if not row or is_over(row, now) then return nil, { 'gone' } end
  if row[EPOCH] ~= tonumber(epoch) then return nil, { 'fenced' } end
  return row
end

local function take_owner(partition, owner)
  redis.call('HINCRBY', partition .. ':own', owner:sub(1, 8), 1)
end

local function release_owner(partition, owner)
  if owner == '' then return end
  if redis.call('HINCRBY', partition .. ':own', owner:sub(1, 8), -1) <= 0 then
    redis.call('HDEL', partition .. ':own', owner:sub(1, 8))
  end
end

local function leave_entry(kind, filter, reader, mark)
  return kind .. cmsgpack.pack({ filter, reader, mark })
end

-- Writes down that a reader, whose mark is what its session had, has to leave its filter's stream, which is in another slot, and adds it to `leaves`.
local function must_leave(partition, filter, reader, mark, now, leaves)
  if reader == '' then return end
  redis.call('ZADD', due_key(partition), now + AGAIN, leave_entry('L', filter, reader, mark))
  for _, field in ipairs({ filter, reader, mark }) do leaves[#leaves + 1] = field end
end

-- Where streams are told that a session reads: filter, reader and mark of each that `moved` names, or of each group's that it is a member of.
local function moves(row, moved, groups_too)
  local answer, held = {}, row[SUBSCRIPTIONS]
  for at = 1, #held, STRIDE do
    if held[at + 2] ~= '' and (moved[held[at]] or (groups_too and is_group(held[at]))) then
      for _, field in ipairs({ held[at], held[at + 2], held[at + 3] }) do answer[#answer + 1] = field end
    end
  end
  return answer
end

-- Writes down that the groups of a session that rests have to hear of it.
local function must_tell_groups(partition, client, row, now)
  if #moves(row, {}, true) > 0 then redis.call('ZADD', due_key(partition), now + AGAIN, 'g' .. client) end
end

-- Ends what a session holds, apart from its row.
local function let_go(partition, client, row, now, leaves)
  release_owner(partition, row[OWNER])
  let_will_fall_due(partition, client, row, now)
  if row[UNTIL] > 0 then redis.call('ZREM', due_key(partition), 's' .. client) end
  if row[DEVICE] ~= NONE then drop_stream(partition, 'd' .. client) end
  local held = row[SUBSCRIPTIONS]
  for at = 1, #held, STRIDE do must_leave(partition, held[at], held[at + 2], held[at + 3], now, leaves) end
end

-- Sessions that one partition keeps for who asks; the oldest fall out, untold.
local EXPIRED_MAX = 1024

-- Notes a session whose rest is over, if somebody asks for those.
local function note_expired(partition, client, row)
  local asked_until = tonumber(redis.call('HGET', count_key(partition), 'a') or 0)
  if row[UNTIL] >= asked_until then return end
  redis.call('RPUSH', partition .. ':e', cmsgpack.pack({ client, row[EPOCH], row[UNTIL] }))
  redis.call('LTRIM', partition .. ':e', -EXPIRED_MAX, -1)
  -- Once nobody asks any more.
  redis.call('PEXPIRE', partition .. ':e', DAY)
end

-- now, how many at most, for how many ms from now on those that expire are kept. Answers clients, epochs and when they expired.
export('take_expired', function(keys, args)
  local partition, now, kept, answer = keys[1], clock(args[1]), tonumber(args[3]), { 'ok' }
  local asked_until = tonumber(redis.call('HGET', count_key(partition), 'a') or 0)
  if asked_until <= now then redis.call('DEL', partition .. ':e') end
  -- Not with each question, as every write is kept and sent to replicas.
  if asked_until <= now + kept / 2 then
    redis.call('HSET', count_key(partition), 'a', string.format('%d', now + kept))
  end
  for _, packed in ipairs(redis.call('LPOP', partition .. ':e', args[2]) or {}) do
    for _, field in ipairs(cmsgpack.unpack(packed)) do answer[#answer + 1] = field end
  end
  return answer
end, { 'allow-oom' })

local function discard(partition, client, row, now, leaves)
  let_go(partition, client, row, now, leaves)
  remove_session(partition, client)
end

-- Leaves a session without an owner, to be resumed or to expire.
local function rest(partition, client, row, expiry, now)
  release_owner(partition, row[OWNER])
  if row[OWNER] ~= '' then row[SINCE] = now end
  row[OWNER], row[EXPIRY], row[ANSWERED] = '', expiry, nil
  if expiry == 4294967295 then
    row[UNTIL] = FOREVER
    redis.call('ZREM', due_key(partition), 's' .. client)
  else
    row[UNTIL] = now + expiry * 1000
    redis.call('ZADD', due_key(partition), row[UNTIL], 's' .. client)
  end
  must_tell_groups(partition, client, row, now)
end

-- When a will falls due whose session rests for so many seconds from now on: after its delay, or with the session.
local function falls_due(will, expiry, now)
  return now + math.min(struct.unpack('<I4', will), expiry) * 1000
end

local function find_subscription(row, filter)
  local held = row[SUBSCRIPTIONS]
  for at = 1, #held, STRIDE do
    if held[at] == filter then return at end
  end
  return nil
end

local function index_subscriptions(held)
  local index = {}
  for at = 1, #held, STRIDE do index[held[at]] = at end
  return index
end

local function remove_subscription(held, at)
  for place = STRIDE - 1, 0, -1 do table.remove(held, at + place) end
end

-- Moves the session's marks as args from `at` on say (filter, offset); the device's as `device` says. Gives which readers moved.
local function move_marks(partition, client, row, device, args, at)
  local moved, index = {}, nil
  if row[DEVICE] ~= NONE and device ~= '' then
    local first, bytes, gaps = first_and_bytes(partition, 'd' .. client)
    if first then
      local last = first + length_of(partition, 'd' .. client) - 1
      local to = math.min(tonumber(device), last)
      if to > row[DEVICE] then
        row[DEVICE] = to
        if to == last then
          drop_stream(partition, 'd' .. client)
        elseif to >= first then
          trim(partition, 'd' .. client, first, bytes, gaps, to + 1 - first)
        end
      end
    end
  end
  for place = at, #args, 2 do
    index = index or index_subscriptions(row[SUBSCRIPTIONS])
    local found, to = index[args[place]], tonumber(args[place + 1])
    local held = row[SUBSCRIPTIONS]
    if found and held[found + 2] ~= '' and to > held[found + 3] then
      held[found + 3] = to
      moved[args[place]] = to
    end
  end
  return moved
end

local function keeps_nothing(row)
  return row[EXPIRY] == 0 and row[DEVICE] == NONE and #row[SUBSCRIPTIONS] == 0
end

-- The will of a connection that another owner has lost, if it falls due by that. It is kept under the epoch that the session had, or under a
-- new one if that owner is buried, as if it had been reaped; where there is no room for it, it is only answered.
local function orphaned_will(partition, client, row, resumes, left_until, room)
  local will, number = row[WILL], row[EPOCH]
  if will == '' or (resumes and struct.unpack('<I4', will) > 0) then return nil end
  if is_buried(partition, row[OWNER]) then number = next_number(partition) end
  if not fits(client, will, room) then return nil, { number, will } end
  keep_will(partition, client, number, will, left_until)
  return { number, will }
end

-- The will that an opening is answered, and who had the session before. A third result is a will that is answered and not kept.
local function will_for_opener(partition, client, row, owner, resumes, now, left_until, room)
  if not row then
    local number = redis.call('HGET', partition .. ':vc', client)
    if not number then return nil, '' end
    redis.call('HDEL', partition .. ':vc', client)
    return answer_will(partition, client, tonumber(number), left_until), ''
  end
  local former, waits, answered = row[OWNER], row[WILL], row[ANSWERED]
  if former == owner then
    -- Its first answer may have been lost, so this one is like it.
    local is_left = answered and answered[2] > now
    local again = is_left and answer_will(partition, client, answered[1], left_until) or nil
    return again, again and answered[3] or ''
  end
  if former ~= '' then
    local orphan, unkept = orphaned_will(partition, client, row, resumes, left_until, room)
    return orphan, former, unkept
  end
  if type(waits) ~= 'table' then return nil, '' end
  if resumes and waits[2] > now then
    strike_out(partition, client, waits[1])
    return nil, ''
  end
  if not is_ungiven(partition, will_member(client, waits[1]), waits[2]) then return nil, '' end
  return answer_will(partition, client, waits[1], left_until), ''
end

-- now, client, owner, clean start, expiry, will, whether there is room for one more session, how many bytes there are for wills, for how many ms
-- a will is left to the owner. Answers among others the will that falls due by it: its number, or 0, and the will.
local function open(keys, args)
  local partition, client, owner, expiry = keys[1], args[2], args[3], tonumber(args[5])
  local now, leaves = clock(args[1]), {}
  local left_until = now + tonumber(args[9])
  if is_buried(partition, owner) then return { 'fenced' } end
  local row = load_session(partition, client)
  if not row and args[7] == '0' then return { 'full' } end
  local resumes = row and args[4] == '0' and row[EXPIRY] > 0 and not is_over(row, now)
  local will, former, unkept =
    will_for_opener(partition, client, row, owner, resumes, now, left_until, args[8])
  local held
  if resumes then
    release_owner(partition, row[OWNER])
    if row[UNTIL] > 0 then redis.call('ZREM', due_key(partition), 's' .. client) end
  elseif row then
    if is_over(row, now) then note_expired(partition, client, row) end
    row[WILL] = ''
    let_go(partition, client, row, now, leaves)
  else
    -- The sweeps tell of the wills.
    held = { add_session(partition, client), 0, NONE }
  end
  local epoch = next_number(partition)
  if resumes then
    row[EPOCH], row[OWNER], row[EXPIRY], row[UNTIL] = epoch, owner, expiry, CONNECTED
    row[SINCE], row[WILL] = now, args[6]
  else
    row = { FORMAT, epoch, owner, expiry, CONNECTED, now, args[6], expiry > 0 and 0 or NONE, '', {} }
  end
  row[ANSWERED] = will and { will[1], left_until, former } or nil
  take_owner(partition, owner)
  store_session(partition, client, row)
  held, will = held or counts(partition), will or unkept or { 0, '' }
  local answer = { 'ok', epoch, former, held[1], held[3], will[1], will[2], leaves, resumes and 1 or 0 }
  for _, field in ipairs({ row[DEVICE], row[PROGRESS], row[SUBSCRIPTIONS] }) do answer[#answer + 1] = field end
  return answer
end

export('open', open)
-- The same while memory is full; its caller says that there is no room for one more.
export('reopen', open, { 'allow-oom' })

-- For subscriptions from args `at` on (filter, options, reader, mark), those that read a stream without a reader are given one.
-- Answers `join` with them, or nil if there is none.
local function hand_out_readers(partition, index, held, args, at, now)
  local wanting = { 'join' }
  for place = at, #args, STRIDE do
    local found, reads = index[args[place]], args[place + 1]:byte(1) % 4 > 0
    if reads and args[place + 2] == '' and not (found and held[found + 2] ~= '') then
      local reader = next_reader(partition)
      redis.call('ZADD', due_key(partition), now + DOUBT, leave_entry('l', args[place], reader))
      wanting[#wanting + 1] = args[place]
      wanting[#wanting + 1] = reader
    end
  end
  return #wanting > 1 and wanting or nil
end

-- Whether one of the readers has been told to leave again.
local function has_lapsed(partition, args, at)
  for place = at, #args, STRIDE do
    local reader = args[place + 2]
    if reader ~= '' and not redis.call('ZSCORE', due_key(partition), leave_entry('l', args[place], reader)) then
      return true
    end
  end
  return false
end

-- Writes subscriptions into a row, with their readers. Gives filter, reader and mark of each that reads a stream.
local function take_up(partition, index, held, args, at, now, leaves)
  local stands = {}
  for place = at, #args, STRIDE do
    local filter, reader = args[place], args[place + 2]
    local found = index[filter]
    if not found then
      found = #held + 1
      held[found], held[found + 1], held[found + 2], held[found + 3] = filter, '', '', NONE
      index[filter] = found
    end
    held[found + 1] = args[place + 1]
    if reader ~= '' then
      redis.call('ZREM', due_key(partition), leave_entry('l', filter, reader))
      held[found + 2], held[found + 3] = reader, tonumber(args[place + 3])
    elseif args[place + 1]:byte(1) % 4 == 0 then
      must_leave(partition, filter, held[found + 2], held[found + 3], now, leaves)
      held[found + 2], held[found + 3] = '', NONE
    end
    if held[found + 2] ~= '' then
      for _, field in ipairs({ filter, held[found + 2], held[found + 3] }) do stands[#stands + 1] = field end
    end
  end
  return stands
end

local function all_readers(held)
  local answer = {}
  for at = 1, #held, STRIDE do
    if held[at + 2] ~= '' then
      for _, field in ipairs({ held[at], held[at + 2], held[at + 3] }) do answer[#answer + 1] = field end
    end
  end
  return answer
end

-- now, client, epoch, then for each subscription: filter, options, reader, mark. Without readers it first answers `join`
-- with one for each stream that has yet to be joined; with them it writes everything down.
export('subscribe', function(keys, args)
  local partition, client = keys[1], args[2]
  local now, leaves = clock(args[1]), {}
  local row, why_not = held_under(partition, client, args[3], now)
  if not row then return why_not end
  if row[EXPIRY] == 0 then return { 'ok', {}, {} } end
  local index, held = index_subscriptions(row[SUBSCRIPTIONS]), row[SUBSCRIPTIONS]
  local join = hand_out_readers(partition, index, held, args, 4, now)
  if join then return join end
  if has_lapsed(partition, args, 4) then return { 'lapsed' } end
  local stands = take_up(partition, index, held, args, 4, now, leaves)
  store_session(partition, client, row)
  return { 'ok', stands, leaves }
end)

-- now, client, epoch, then for each stream that was lost and its reader with it: filter, that reader, a fresh one, its mark. Without fresh ones it
-- answers with one for each, to be joined; with them it puts them in the place of the others.
export('rejoin', function(keys, args)
  local partition, client = keys[1], args[2]
  local now, leaves, answer = clock(args[1]), {}, { 'ok' }
  local row, why_not = held_under(partition, client, args[3], now)
  if not row then return why_not end
  if args[6] == '' then
    for at = 4, #args, STRIDE do
      local reader = next_reader(partition)
      redis.call('ZADD', due_key(partition), now + DOUBT, leave_entry('l', args[at], reader))
      answer[#answer + 1] = reader
    end
    return answer
  end
  if has_lapsed(partition, args, 4) then return { 'lapsed' } end
  local index, held = index_subscriptions(row[SUBSCRIPTIONS]), row[SUBSCRIPTIONS]
  for at = 4, #args, STRIDE do
    local found = index[args[at]]
    if not found or held[found + 2] ~= args[at + 1] then return { 'lapsed' } end
  end
  for at = 4, #args, STRIDE do
    local found = index[args[at]]
    redis.call('ZREM', due_key(partition), leave_entry('l', args[at], args[at + 2]))
    -- Should it be there after all, as on a server that was promoted since, nobody else would ever take it out.
    must_leave(partition, args[at], args[at + 1], held[found + 3], now, leaves)
    held[found + 2], held[found + 3] = args[at + 2], tonumber(args[at + 3])
  end
  store_session(partition, client, row)
  return { 'ok', leaves }
end)

-- now, client, owner, epoch, expiry, will, progress, whether there is room for one more, then subscriptions as with `subscribe`:
-- a session that this server has lost, or knows in an older state only. Answers all that it reads (filter, reader, mark) and the mark
-- in the device's stream. One that was opened in this server's present life and is not there has ended.
export('restore', function(keys, args)
  local partition, client, owner = keys[1], args[2], args[3]
  local epoch, expiry = tonumber(args[4]), tonumber(args[5])
  local now, leaves = clock(args[1]), {}
  local row = load_session(partition, client)
  local is_alive = row and not is_over(row, now)
  local is_there = is_alive and row[EPOCH] == epoch
  local is_later = is_alive and (row[EPOCH] > epoch or (is_there and row[OWNER] ~= owner))
  local has_ended = not is_there and is_of_this_life(partition, epoch)
  if is_later or has_ended or is_buried(partition, owner) then return { 'fenced' } end
  if not row and args[8] == '0' then return { 'full' } end
  local is_older = is_alive and not is_there and row[EXPIRY] > 0 and expiry > 0
  local held = (is_there or is_older) and row[SUBSCRIPTIONS] or {}
  local index = index_subscriptions(held)
  if is_there then
    local is_kept = row[EXPIRY] > 0
    local reads, device = is_kept and all_readers(held) or {}, is_kept and row[DEVICE] or NONE
    return { 'ok', reads, leaves, counts(partition)[1], device }
  end
  local from = expiry > 0 and 9 or #args + 1
  local join = hand_out_readers(partition, index, held, args, from, now)
  if join then return join end
  if has_lapsed(partition, args, from) then return { 'lapsed' } end
  if is_older then
    release_owner(partition, row[OWNER])
    take_back_will(partition, client, row, now)
    if row[UNTIL] > 0 then redis.call('ZREM', due_key(partition), 's' .. client) end
    local wanted = {}
    for at = from, #args, STRIDE do wanted[args[at]] = true end
    for at = #held - STRIDE + 1, 1, -STRIDE do
      if not wanted[held[at]] then
        must_leave(partition, held[at], held[at + 2], held[at + 3], now, leaves)
        remove_subscription(held, at)
      end
    end
    index = index_subscriptions(held)
  elseif row then
    if is_over(row, now) then note_expired(partition, client, row) end
    take_back_will(partition, client, row, now)
    row[WILL] = ''
    let_go(partition, client, row, now, leaves)
  else
    add_session(partition, client)
    redis.call('HDEL', partition .. ':vc', client)
  end
  raise_numbers(partition, epoch)
  local device = is_older and row[DEVICE] or (expiry > 0 and beginning(now) or NONE)
  row = { FORMAT, epoch, owner, expiry, CONNECTED, now, args[6], device, args[7], held }
  take_up(partition, index, held, args, from, now, leaves)
  take_owner(partition, owner)
  store_session(partition, client, row)
  return { 'ok', all_readers(held), leaves, counts(partition)[1], device }
end)

-- now, client, epoch, filters.
export('unsubscribe', function(keys, args)
  local partition, client = keys[1], args[2]
  local now, leaves = clock(args[1]), {}
  local row, why_not = held_under(partition, client, args[3], now)
  if not row then return why_not end
  for at = 4, #args do
    local found = find_subscription(row, args[at])
    if found then
      local held = row[SUBSCRIPTIONS]
      must_leave(partition, args[at], held[found + 2], held[found + 3], now, leaves)
      remove_subscription(held, found)
    end
  end
  store_session(partition, client, row)
  return { 'ok', leaves }
end, { 'allow-oom' })

-- now, client, epoch, progress, the device's offset or '', then filter and offset of each cursor. Answers which readers moved.
export('save', function(keys, args)
  local partition, client = keys[1], args[2]
  local row, why_not = held_under(partition, client, args[3], clock(args[1]))
  if not row then return why_not end
  if keeps_nothing(row) then return { 'ok', {} } end
  local moved = move_marks(partition, client, row, args[5], args, 6)
  row[PROGRESS] = args[4]
  store_session(partition, client, row)
  return { 'ok', moves(row, moved, false), stream_bytes(partition) }
end, { 'allow-oom' })

-- now, client, epoch, a shared subscription's filter. Answers under which name the session reads its stream, and its mark there; `none` also of one that rests.
export('member', function(keys, args)
  local row, why_not = held_under(keys[1], args[2], args[3], clock(args[1]))
  if not row then return why_not end
  local found = is_group(args[4]) and row[OWNER] ~= '' and find_subscription(row, args[4])
  local held = row[SUBSCRIPTIONS]
  if not found or held[found + 2] == '' then return { 'none' } end
  return { 'ok', held[found + 2], held[found + 3] }
end, { 'no-writes' })

-- client, epoch: all groups of a session that rests have heard of it.
export('rested', function(keys, args)
  local row = load_session(keys[1], args[1])
  if row and row[OWNER] == '' and row[EPOCH] == tonumber(args[2]) then
    redis.call('ZREM', due_key(keys[1]), 'g' .. args[1])
  end
  return { 'ok' }
end, { 'allow-oom' })

-- client, epoch, filter, offset: the mark that was saved lay beyond the stream's end, which is here.
export('lower', function(keys, args)
  local row = load_session(keys[1], args[1])
  local found = row and row[EPOCH] == tonumber(args[2]) and find_subscription(row, args[3])
  if not found then return { 'none' } end
  row[SUBSCRIPTIONS][found + 3] = math.min(row[SUBSCRIPTIONS][found + 3], tonumber(args[4]))
  store_session(keys[1], args[1], row)
  return { 'ok' }
end, { 'allow-oom' })

-- now, client, epoch, progress, the device's offset or '', expiry, will, how many bytes there are for wills, then the cursors. Answers
-- among others whether the will was let go.
export('close', function(keys, args)
  local partition, client, expiry, will = keys[1], args[2], tonumber(args[6]), args[7]
  local now, leaves, moved, dropped = clock(args[1]), {}, {}, 0
  local row, why_not = held_under(partition, client, args[3], now)
  if not row then
    -- A former owner, whose client had said goodbye.
    if will == '' then strike_out(partition, client, tonumber(args[3])) end
    return why_not
  end
  -- A second close finds no will of a connection, and leaves one that waits.
  if row[OWNER] == '' then will = '' else row[WILL] = '' end
  if will ~= '' and not fits(client, will, args[8]) then will, dropped = '', 1 end
  -- Also of one that ends: what it has settled its groups give to nobody.
  local marks = move_marks(partition, client, row, args[5], args, 9)
  if expiry == 0 or row[EXPIRY] == 0 then
    discard(partition, client, row, now, leaves)
    if will ~= '' then keep_last_will(partition, client, row[EPOCH], will, now) end
  else
    rest(partition, client, row, expiry, now)
    if will == '' then
      bring_will_forward(partition, client, row)
    else
      row[WILL] = keep_will(partition, client, row[EPOCH], will, falls_due(will, expiry, now))
    end
    row[PROGRESS] = args[4]
    store_session(partition, client, row)
    moved = moves(row, marks, true)
  end
  local held = counts(partition)
  return { 'ok', moved, leaves, held[1], held[2], held[3], dropped }
end, { 'allow-oom' })

-- now, client, epoch, how many bytes there are for wills: its owner is dead. One that rests already stays as it is.
export('reap', function(keys, args)
  local partition, client = keys[1], args[2]
  local now, leaves = clock(args[1]), {}
  local row, why_not = held_under(partition, client, args[3], now)
  if not row then return why_not end
  local moved, number, dropped = {}, row[EPOCH], 0
  if row[OWNER] ~= '' then
    local will, expiry = row[WILL], row[EXPIRY]
    number = next_number(partition)
    row[EPOCH], row[WILL] = number, ''
    if will ~= '' and not fits(client, will, args[4]) then will, dropped = '', 1 end
    if expiry == 0 then
      discard(partition, client, row, now, leaves)
      if will ~= '' then keep_last_will(partition, client, number, will, now) end
    else
      rest(partition, client, row, expiry, now)
      if will ~= '' then
        row[WILL] = keep_will(partition, client, number, will, falls_due(will, expiry, now))
      end
      store_session(partition, client, row)
      moved = moves(row, {}, true)
    end
  end
  local held = counts(partition)
  return { 'ok', moved, leaves, held[1], held[2], held[3], dropped, number }
end, { 'allow-oom' })

-- now, client. Answers of one that is not there whether it may be on its way back.
export('lookup', function(keys, args)
  local partition, client = keys[1], args[2]
  local row = load_session(partition, client)
  local now = clock(args[1])
  if not row or is_over(row, now) then return { 'none', may_have_just_begun(partition, now) } end
  local _, _, gaps = first_and_bytes(partition, 'd' .. client)
  local pending = gaps and length_of(partition, 'd' .. client) - gaps or 0
  local held = row[EXPIRY] > 0 and row[SUBSCRIPTIONS] or {}
  return { 'ok', row[OWNER], row[EPOCH], row[EXPIRY] > 0 and 1 or 0, row[SINCE], row[UNTIL], pending, held }
end, { 'no-writes' })
