-- Leases of nodes and locks.
--
--   lease       zset    node -> Unix ms until when it has its lease; all nodes in one partition
--   idle        zset    node without a lease that owned nothing -> Unix ms when its lease ended; in the same partition
--   dead        zset    buried node -> Unix ms of its burial; in every partition, so that each can refuse what the node opens
--   k           hash    name of a lock -> its end and its holder

-- For how long after the end of its lease a node is asked for, in ms: what it opened with its last breath is found by then.
local LINGER = 60000
-- Nodes without a lease that are remembered at most, each in some 100 bytes; who went first is forgotten first, and all after a day.
local IDLE_MAX = 65536
-- Nodes that may be buried within a day; each takes some 100 bytes in every partition. One more is refused, as none may be forgotten.
local DEAD_MAX = 4096

local function is_buried(partition, owner)
  return redis.call('ZSCORE', partition .. ':dead', owner:sub(1, 8)) and true or false
end

local function forget_old(set, now)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', now - DAY)
end

-- now, node, for how many ms. Answers whether it was known. One that owned nothing still is: its late return must not look
-- as if this server had lost its data.
export('renew', function(keys, args)
  local partition, node = keys[1], args[2]
  if is_buried(partition, node) then return { 'fenced' } end
  local is_known = redis.call('ZREM', partition .. ':idle', node) == 1
  is_known = redis.call('ZSCORE', partition .. ':lease', node) and true or is_known
  redis.call('ZADD', partition .. ':lease', clock(args[1]) + tonumber(args[3]), node)
  return { 'ok', is_known and 1 or 0 }
end, { 'allow-oom' })

-- now: the nodes whose lease ran out.
export('expired', function(keys, args)
  return { 'ok', redis.call('ZRANGE', keys[1] .. ':lease', '-inf', clock(args[1]), 'BYSCORE') }
end, { 'no-writes' })

-- now, nodes that own nothing: asks no more for those whose lease is long over.
export('retire', function(keys, args)
  local partition, now = keys[1], clock(args[1])
  for at = 2, #args do
    local ended = redis.call('ZSCORE', partition .. ':lease', args[at])
    if ended and tonumber(ended) + LINGER <= now then
      redis.call('ZREM', partition .. ':lease', args[at])
      redis.call('ZADD', partition .. ':idle', ended, args[at])
    end
  end
  redis.call('ZREMRANGEBYRANK', partition .. ':idle', 0, -IDLE_MAX - 1)
  return { 'ok' }
end, { 'allow-oom' })

-- now, node, whether this partition has the leases, which then speaks first. A second burial counts from the first.
export('bury', function(keys, args)
  local partition, now, node = keys[1], clock(args[1]), args[2]
  if is_buried(partition, node) then return { 'ok' } end
  forget_old(partition .. ':dead', now)
  if args[3] == '1' then
    local ends = redis.call('ZSCORE', partition .. ':lease', node)
    if ends and tonumber(ends) > now then return { 'fenced' } end
    if redis.call('ZCARD', partition .. ':dead') >= DEAD_MAX then return { 'full' } end
  end
  redis.call('ZADD', partition .. ':dead', now, node)
  return { 'ok' }
end, { 'allow-oom' })

local function lock_ends(packed, now)
  local lock = packed and cmsgpack.unpack(packed)
  return lock and lock[1] > now and lock or nil
end

-- now, name, holder, for how many ms. Answers whether the holder has it now.
export('lock', function(keys, args)
  local partition, now, name = keys[1], clock(args[1]), args[2]
  local held = lock_ends(redis.call('HGET', partition .. ':k', name), now)
  if held and held[2] ~= args[3] then return { 'ok', 0 } end
  local ends = now + tonumber(args[4])
  redis.call('HSET', partition .. ':k', name, cmsgpack.pack({ ends, args[3] }))
  redis.call('ZADD', due_key(partition), ends, 'k' .. name)
  return { 'ok', 1 }
end, { 'allow-oom' })

local function remove_lock(partition, name, now)
  if lock_ends(redis.call('HGET', partition .. ':k', name), now) then return end
  redis.call('HDEL', partition .. ':k', name)
  redis.call('ZREM', due_key(partition), 'k' .. name)
end
