-- Wills whose connections have ended, until someone says that they are published. The will of a connected
-- session stands in its row: seconds of delay in four bytes, then what only our caller understands.
--
--   v           zset    number and client -> Unix ms when it is to be given out next
--   vm          hash    number and client -> the will
--   vc          hash    client without a session -> number of its last will, if nobody was given it yet
--
-- A row has { number, when it falls due } in place of a will while the session rests, and behind all else
-- { number, until when it is left to the owner, who had the session } while it is connected and its owner was answered one.

-- What a will takes beside its own bytes and its client's name, roughly.
local WILL_OVERHEAD = 128

local function will_member(client, number) return struct.pack('>I8', number) .. client end

local function will_bytes(client, will) return #client + #will - 8 + WILL_OVERHEAD end

-- Whether a will finds room in so many bytes.
local function fits(client, will, room) return will_bytes(client, will) <= tonumber(room) end

local function count_wills(partition, more)
  redis.call('HINCRBY', count_key(partition), 'w', more)
end

-- Keeps a will until it is published.
local function keep_will(partition, client, number, will, due)
  local member = will_member(client, number)
  redis.call('ZADD', partition .. ':v', due, member)
  redis.call('HSET', partition .. ':vm', member, will)
  count_wills(partition, will_bytes(client, will))
  return { number, due }
end

-- The same of a client that has no session any more, which falls due now.
local function keep_last_will(partition, client, number, will, now)
  keep_will(partition, client, number, will, now)
  redis.call('HSET', partition .. ':vc', client, string.format('%d', number))
end

local function strike_out(partition, client, number)
  local member = will_member(client, number)
  if redis.call('ZREM', partition .. ':v', member) == 0 then return end
  local will = redis.call('HGET', partition .. ':vm', member)
  redis.call('HDEL', partition .. ':vm', member)
  if will then count_wills(partition, -will_bytes(client, will)) end
  -- Another version of us does not count, so begin anew where that can be known.
  if redis.call('EXISTS', partition .. ':vm') == 0 then redis.call('HDEL', count_key(partition), 'w') end
end

-- Whether nobody was given a will yet that falls or fell due at this time.
local function is_ungiven(partition, member, due)
  return tonumber(redis.call('ZSCORE', partition .. ':v', member) or -1) == due
end

-- The client of a session is back. Strikes out a will that waits for its time.
local function take_back_will(partition, client, row, now)
  local waits = row[WILL]
  if type(waits) == 'table' and waits[2] > now then strike_out(partition, client, waits[1]) end
end

-- The session of a will ends, with which it falls due.
local function let_will_fall_due(partition, client, row, now)
  local waits = row[WILL]
  if type(waits) ~= 'table' then return end
  local member = will_member(client, waits[1])
  if not is_ungiven(partition, member, waits[2]) then return end
  if waits[2] > now then redis.call('ZADD', partition .. ':v', now, member) end
  redis.call('HSET', partition .. ':vc', client, string.format('%d', waits[1]))
end

-- The session ends at this time now, and a will that would fall due later does so then.
local function bring_will_forward(partition, client, row)
  local waits = row[WILL]
  if type(waits) ~= 'table' or row[UNTIL] == FOREVER or waits[2] <= row[UNTIL] then return end
  redis.call('ZADD', partition .. ':v', row[UNTIL], will_member(client, waits[1]))
  waits[2] = row[UNTIL]
end

-- Leaves a will to whoever opens the session, until then. Gives its number and itself, or nil if it is not there.
local function answer_will(partition, client, number, left_until)
  local member = will_member(client, number)
  local will = redis.call('HGET', partition .. ':vm', member)
  if not will then return nil end
  redis.call('ZADD', partition .. ':v', left_until, member)
  return { number, will }
end

-- now: how many are to be given out.
export('wills_due', function(keys, args)
  return { 'ok', redis.call('ZCOUNT', keys[1] .. ':v', '-inf', clock(args[1])) }
end, { 'no-writes' })

-- now, how many at most, in how many ms to give them again. Answers numbers, clients and wills.
export('wills', function(keys, args)
  local partition, now, answer = keys[1], clock(args[1]), { 'ok' }
  local due = redis.call('ZRANGE', partition .. ':v', '-inf', now, 'BYSCORE', 'LIMIT', 0, args[2])
  for _, member in ipairs(due) do
    local will = redis.call('HGET', partition .. ':vm', member)
    local number, client = struct.unpack('>I8', member), member:sub(9)
    if redis.call('HGET', partition .. ':vc', client) == string.format('%d', number) then
      redis.call('HDEL', partition .. ':vc', client)
    end
    if will then
      redis.call('ZADD', partition .. ':v', now + tonumber(args[3]), member)
      answer[#answer + 1] = number
      answer[#answer + 1] = client
      answer[#answer + 1] = will
    else
      redis.call('ZREM', partition .. ':v', member)
    end
  end
  return answer
end, { 'allow-oom' })

-- client, number: it is published. Answers the bytes of all that wait in this partition.
export('published', function(keys, args)
  strike_out(keys[1], args[1], tonumber(args[2]))
  return { 'ok', tonumber(redis.call('HGET', count_key(keys[1]), 'w') or 0) }
end, { 'allow-oom' })
