-- Leases of nodes, all in one partition:
--
--   lease       zset    node -> Unix ms

-- now, node, for how many ms.
export('renew', function(keys, args)
  redis.call('ZADD', keys[1] .. ':lease', clock(args[1]) + tonumber(args[3]), args[2])
  return { 'ok' }
end, { 'allow-oom' })

-- now: the nodes whose lease ran out.
export('expired', function(keys, args)
  return { 'ok', redis.call('ZRANGE', keys[1] .. ':lease', '-inf', clock(args[1]), 'BYSCORE') }
end, { 'no-writes' })

-- now, nodes that own nothing: forgets those whose lease has still run out.
export('retire', function(keys, args)
  local now = clock(args[1])
  for at = 2, #args do
    local untill = redis.call('ZSCORE', keys[1] .. ':lease', args[at])
    if untill and tonumber(untill) <= now then redis.call('ZREM', keys[1] .. ':lease', args[at]) end
  end
  return { 'ok' }
end, { 'allow-oom' })
