-- What is asked of a session. All of it is on the session's slot; what other slots must do is in the answer, and in `due`
-- until it is done.
--
--   own         hash    node -> how many sessions it owns in this partition

-- How long until a leave that was handed out is handed out again, in ms.
local AGAIN = 5000

-- The row if `epoch` is its current one and it is not over.
local function fenced(partition, client, epoch, now)
  local row = load_session(partition, client)
  if row and row[EPOCH] == tonumber(epoch) and not is_over(row, now) then return row end
  return nil
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

local function leave_entry(kind, filter, reader)
  return kind .. cmsgpack.pack({ filter, reader })
end

-- Writes down that a reader has to leave its filter's stream, which is in another slot, and adds it to `leaves`.
local function must_leave(partition, filter, reader, now, leaves)
  if reader == '' then return end
  redis.call('ZADD', due_key(partition), now + AGAIN, leave_entry('L', filter, reader))
  leaves[#leaves + 1] = filter
  leaves[#leaves + 1] = reader
end

-- Ends what a session holds, apart from its row.
local function let_go(partition, client, row, now, leaves)
  release_owner(partition, row[OWNER])
  if row[UNTIL] > 0 then redis.call('ZREM', due_key(partition), 's' .. client) end
  if row[DEVICE] ~= NONE then drop_stream(partition, 'd' .. client) end
  local held = row[SUBSCRIPTIONS]
  for at = 1, #held, STRIDE do must_leave(partition, held[at], held[at + 2], now, leaves) end
end

local function discard(partition, client, row, now, leaves)
  let_go(partition, client, row, now, leaves)
  redis.call('DEL', key(partition, 's', client))
  redis.call('HINCRBY', count_key(partition), 's', -1)
end

local function find_subscription(row, filter)
  local held = row[SUBSCRIPTIONS]
  for at = 1, #held, STRIDE do
    if held[at] == filter then return at end
  end
  return nil
end

local function index_subscriptions(row)
  local index, held = {}, row[SUBSCRIPTIONS]
  for at = 1, #held, STRIDE do index[held[at]] = at end
  return index
end

local function remove_subscription(row, at)
  local held = row[SUBSCRIPTIONS]
  for place = STRIDE - 1, 0, -1 do table.remove(held, at + place) end
end

-- Moves the session's marks as args from `at` on say (filter, offset); the device's as `device` says. Gives which readers moved.
local function move_marks(partition, client, row, device, args, at)
  local moved, index = {}, nil
  if row[DEVICE] ~= NONE and device ~= '' then
    local first, bytes = first_and_bytes(partition, 'd' .. client)
    if first then
      local last = first + length_of(partition, 'd' .. client) - 1
      local to = math.min(tonumber(device), last)
      if to > row[DEVICE] then
        row[DEVICE] = to
        if to == last then
          drop_stream(partition, 'd' .. client)
        elseif to >= first then
          trim(partition, 'd' .. client, first, bytes, to + 1 - first)
        end
      end
    end
  end
  for place = at, #args, 2 do
    index = index or index_subscriptions(row)
    local found, to = index[args[place]], tonumber(args[place + 1])
    local held = row[SUBSCRIPTIONS]
    -- A group's member stands where its group did when it was opened, which only the group knows.
    if found and held[found + 2] ~= '' and (to > held[found + 3] or is_group(args[place])) then
      held[found + 3] = to
      moved[args[place]] = to
    end
  end
  return moved
end

local function keeps_nothing(row)
  return row[EXPIRY] == 0 and row[DEVICE] == NONE and #row[SUBSCRIPTIONS] == 0
end

-- now, client, owner, clean start, expiry, will, whether there is room for one more.
local function open(keys, args)
  local partition, client, owner, expiry = keys[1], args[2], args[3], tonumber(args[5])
  local now, leaves = clock(args[1]), {}
  local row = load_session(partition, client)
  if not row and args[7] == '0' then return { 'full' } end
  local former = (row and row[OWNER] ~= owner) and row[OWNER] or ''
  local resumes = row and args[4] == '0' and row[EXPIRY] > 0 and not is_over(row, now)
  if resumes then
    release_owner(partition, row[OWNER])
    if row[UNTIL] > 0 then redis.call('ZREM', due_key(partition), 's' .. client) end
  elseif row then
    let_go(partition, client, row, now, leaves)
  else
    redis.call('HINCRBY', count_key(partition), 's', 1)
  end
  local epoch = next_number(partition)
  if resumes then
    row[EPOCH], row[OWNER], row[EXPIRY], row[UNTIL], row[WILL] = epoch, owner, expiry, CONNECTED, args[6]
  else
    row = { FORMAT, epoch, owner, expiry, CONNECTED, args[6], expiry > 0 and 0 or NONE, '', {} }
  end
  take_owner(partition, owner)
  store_session(partition, client, row)
  local sessions = tonumber(redis.call('HGET', count_key(partition), 's'))
  return { 'ok', epoch, former, sessions, leaves, resumes and 1 or 0, row[DEVICE], row[PROGRESS], row[SUBSCRIPTIONS] }
end

export('open', open)
-- The same while memory is full; its caller says that there is no room for one more.
export('reopen', open, { 'allow-oom' })

-- now, client, epoch, then for each subscription: filter, options, reader, mark. Without readers it first answers `join`
-- with one for each stream that has yet to be joined; with them it writes everything down.
export('subscribe', function(keys, args)
  local partition, client = keys[1], args[2]
  local now = clock(args[1])
  local row = fenced(partition, client, args[3], now)
  if not row then return { 'fenced' } end
  if row[EXPIRY] == 0 then return { 'ok', {}, {} } end
  local index, wanting = index_subscriptions(row), { 'join' }
  for at = 4, #args, STRIDE do
    local found, reads = index[args[at]], args[at + 1]:byte(1) % 4 > 0
    if reads and args[at + 2] == '' and not (found and row[SUBSCRIPTIONS][found + 2] ~= '') then
      local reader = next_reader(partition)
      redis.call('ZADD', due_key(partition), now + DOUBT, leave_entry('l', args[at], reader))
      wanting[#wanting + 1] = args[at]
      wanting[#wanting + 1] = reader
    end
  end
  if #wanting > 1 then return wanting end
  for at = 4, #args, STRIDE do
    if args[at + 2] ~= '' and not redis.call('ZSCORE', due_key(partition), leave_entry('l', args[at], args[at + 2])) then
      return { 'lapsed' }
    end
  end
  local stands, leaves, held = {}, {}, row[SUBSCRIPTIONS]
  for at = 4, #args, STRIDE do
    local filter, reader = args[at], args[at + 2]
    local found = index[filter]
    if not found then
      found = #held + 1
      held[found], held[found + 2], held[found + 3] = filter, '', NONE
      held[found + 1] = args[at + 1]
      index[filter] = found
    end
    held[found + 1] = args[at + 1]
    if reader ~= '' then
      redis.call('ZREM', due_key(partition), leave_entry('l', filter, reader))
      held[found + 2], held[found + 3] = reader, tonumber(args[at + 3])
    elseif args[at + 1]:byte(1) % 4 == 0 then
      must_leave(partition, filter, held[found + 2], now, leaves)
      held[found + 2], held[found + 3] = '', NONE
    end
    if held[found + 2] ~= '' then
      stands[#stands + 1] = filter
      stands[#stands + 1] = held[found + 3]
    end
  end
  store_session(partition, client, row)
  return { 'ok', stands, leaves }
end)

-- now, client, epoch, filters.
export('unsubscribe', function(keys, args)
  local partition, client = keys[1], args[2]
  local now, leaves = clock(args[1]), {}
  local row = fenced(partition, client, args[3], now)
  if not row then return { 'fenced' } end
  for at = 4, #args do
    local found = find_subscription(row, args[at])
    if found then
      must_leave(partition, args[at], row[SUBSCRIPTIONS][found + 2], now, leaves)
      remove_subscription(row, found)
    end
  end
  store_session(partition, client, row)
  return { 'ok', leaves }
end, { 'allow-oom' })

local function moves(row, moved, groups_too)
  local answer, held = {}, row[SUBSCRIPTIONS]
  for at = 1, #held, STRIDE do
    if held[at + 2] ~= '' and (moved[held[at]] or (groups_too and is_group(held[at]))) then
      answer[#answer + 1] = held[at]
      answer[#answer + 1] = held[at + 2]
      answer[#answer + 1] = held[at + 3]
    end
  end
  return answer
end

-- now, client, epoch, progress, the device's offset or '', then filter and offset of each cursor. Answers which readers moved.
export('save', function(keys, args)
  local partition, client = keys[1], args[2]
  local row = fenced(partition, client, args[3], clock(args[1]))
  if not row then return { 'fenced' } end
  if keeps_nothing(row) then return { 'ok', {} } end
  local moved = move_marks(partition, client, row, args[5], args, 6)
  row[PROGRESS] = args[4]
  store_session(partition, client, row)
  return { 'ok', moves(row, moved, false), stream_bytes(partition) }
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

-- now, client, epoch, progress, the device's offset or '', expiry, then the cursors.
export('close', function(keys, args)
  local partition, client, expiry = keys[1], args[2], tonumber(args[6])
  local now, leaves = clock(args[1]), {}
  local row = fenced(partition, client, args[3], now)
  if not row then return { 'fenced' } end
  if expiry == 0 or row[EXPIRY] == 0 then
    discard(partition, client, row, now, leaves)
    local sessions = tonumber(redis.call('HGET', count_key(partition), 's'))
    return { 'ok', {}, leaves, sessions, stream_bytes(partition) }
  end
  release_owner(partition, row[OWNER])
  local moved = move_marks(partition, client, row, args[5], args, 7)
  row[OWNER], row[EXPIRY], row[WILL], row[PROGRESS] = '', expiry, '', args[4]
  if expiry == 4294967295 then
    row[UNTIL] = FOREVER
    redis.call('ZREM', due_key(partition), 's' .. client)
  else
    row[UNTIL] = now + expiry * 1000
    redis.call('ZADD', due_key(partition), row[UNTIL], 's' .. client)
  end
  store_session(partition, client, row)
  local sessions = tonumber(redis.call('HGET', count_key(partition), 's'))
  return { 'ok', moves(row, moved, true), leaves, sessions, stream_bytes(partition) }
end, { 'allow-oom' })

-- now, client.
export('lookup', function(keys, args)
  local row = load_session(keys[1], args[2])
  if not row or is_over(row, clock(args[1])) then return { 'none' } end
  return { 'ok', row[OWNER], row[EPOCH], row[EXPIRY] > 0 and 1 or 0, row[EXPIRY] > 0 and row[SUBSCRIPTIONS] or {} }
end, { 'no-writes' })
