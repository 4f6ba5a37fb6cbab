-- Live registrations → their records. With a worker, its record and a TTL: first register it;
-- with a worker alone: first drop it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if record then
  redis.call('HSET', WORKERS, worker, record)
  redis.call('ZADD', UNTIL, string.format('%.0f', now + ttl_ms), worker)
elseif worker then
  redis.call('ZADD', UNTIL, 0, worker)
end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', UNTIL, '-inf', string.format('%.0f', now))) do
  redis.call('HDEL', WORKERS, gone)
  redis.call('ZREM', UNTIL, gone)
end
return redis.call('HVALS', WORKERS)
