-- A session's row: one string a client, packed as MessagePack. It stands here while the session is connected or rests.
--
--   s:<client>  string  the row
--   c           zset    clients that have one, all of score 0, so in the order of their bytes

local VERSION, EPOCH, OWNER, EXPIRY, UNTIL, SINCE = 1, 2, 3, 4, 5, 6
local WILL, DEVICE, PROGRESS, SUBSCRIPTIONS = 7, 8, 9, 10
-- Only there if a will was answered to the opening of the present connection (`wills.lua`).
local ANSWERED = 11
-- In SUBSCRIPTIONS, one after the other: filter, options (the first byte holds the QoS), reader ('' for none), mark.
local STRIDE = 4
local CONNECTED, FOREVER = 0, -1

local function load_session(partition, client)
  local packed = redis.call('GET', key(partition, 's', client))
  if not packed then return nil end
  local row = cmsgpack.unpack(packed)
  if row[VERSION] ~= FORMAT then
    error(redis.error_reply('FOREIGN session format ' .. tostring(row[VERSION])))
  end
  return row
end

local function store_session(partition, client, row)
  redis.call('SET', key(partition, 's', client), cmsgpack.pack(row))
end

-- A row where none was. Gives how many there are.
local function add_session(partition, client)
  redis.call('ZADD', partition .. ':c', 0, client)
  return redis.call('HINCRBY', count_key(partition), 's', 1)
end

local function remove_session(partition, client)
  redis.call('DEL', key(partition, 's', client))
  redis.call('HINCRBY', count_key(partition), 's', -1)
  redis.call('ZREM', partition .. ':c', client)
end

-- What a partition holds: how many sessions, bytes of messages in streams, and bytes of wills that wait to be published.
local function counts(partition)
  local found = redis.call('HMGET', count_key(partition), 's', 'b', 'w')
  for at = 1, 3 do found[at] = tonumber(found[at] or 0) end
  return found
end

local function is_over(row, now)
  return row[UNTIL] > 0 and row[UNTIL] <= now
end

