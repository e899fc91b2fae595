-- Retained messages of a partition's topics.
--
--   r           hash    topic -> message
--   t           zset    topics, all of score 0, so in the order of their bytes

local function remove_retained(partition, topic)
  local bytes = redis.call('HSTRLEN', partition .. ':r', topic)
  if bytes == 0 then return end
  redis.call('HDEL', partition .. ':r', topic)
  redis.call('ZREM', partition .. ':t', topic)
  redis.call('ZREM', due_key(partition), 'r' .. topic)
  redis.call('HINCRBY', count_key(partition), 'r', -bytes)
end

local function retained_bytes(partition)
  return tonumber(redis.call('HGET', count_key(partition), 'r') or 0)
end

-- topic, message, when it expires (0: never), how many bytes this partition's retained messages may be.
export('retain', function(keys, args)
  local partition, topic, message = keys[1], args[1], args[2]
  local former = redis.call('HSTRLEN', partition .. ':r', topic)
  if retained_bytes(partition) - former + #message > tonumber(args[4]) then return { 'full' } end
  remove_retained(partition, topic)
  redis.call('HSET', partition .. ':r', topic, message)
  redis.call('ZADD', partition .. ':t', 0, topic)
  redis.call('HINCRBY', count_key(partition), 'r', #message)
  if args[3] ~= '0' then redis.call('ZADD', due_key(partition), args[3], 'r' .. topic) end
  return { 'ok', retained_bytes(partition) }
end)

-- topics. How many bytes the message of each is; 0 where there is none.
export('weigh', function(keys, args)
  local answer = { 'ok' }
  for at, topic in ipairs(args) do answer[at + 1] = redis.call('HSTRLEN', keys[1] .. ':r', topic) end
  return answer
end, { 'no-writes' })

-- topic.
export('forget', function(keys, args)
  remove_retained(keys[1], args[1])
  return { 'ok', retained_bytes(keys[1]) }
end, { 'allow-oom' })
