-- Wills of sessions that were taken from a dead owner, until someone says that they are published. The will of a connected
-- session stands in its row: seconds of delay in four bytes, then what only our caller understands.
--
--   v           zset    number and client -> Unix ms when it is to be given out next
--   vm          hash    number and client -> the will
--
-- While its session rests and may yet cancel it, the row has { number, when it falls due } in place of a will.

local function will_member(client, number) return struct.pack('>I8', number) .. client end

-- Gives what the row has in place of the will.
local function await_will(partition, client, number, will, due)
  local member = will_member(client, number)
  redis.call('ZADD', partition .. ':v', due, member)
  redis.call('HSET', partition .. ':vm', member, will)
  return { number, due }
end

-- The session of a will that waits is resumed, which cancels it, or ends, with which it falls due (MQTT-3.1.3-9). One that has fallen due
-- before is beyond that.
local function settle_will(partition, client, row, now, is_resumed)
  local will = row[WILL]
  row[WILL] = ''
  if type(will) ~= 'table' or will[2] <= now then return end
  local member = will_member(client, will[1])
  if is_resumed then
    redis.call('ZREM', partition .. ':v', member)
    redis.call('HDEL', partition .. ':vm', member)
  else
    redis.call('ZADD', partition .. ':v', 'XX', now, member)
  end
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
    if will then
      redis.call('ZADD', partition .. ':v', now + tonumber(args[3]), member)
      answer[#answer + 1] = (struct.unpack('>I8', member))
      answer[#answer + 1] = member:sub(9)
      answer[#answer + 1] = will
    else
      redis.call('ZREM', partition .. ':v', member)
    end
  end
  return answer
end, { 'allow-oom' })

-- client, number: it is published.
export('published', function(keys, args)
  local member = will_member(args[1], tonumber(args[2]))
  redis.call('ZREM', keys[1] .. ':v', member)
  redis.call('HDEL', keys[1] .. ':vm', member)
  return { 'ok' }
end, { 'allow-oom' })
