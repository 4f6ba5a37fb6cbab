-- Live registrations → their records. With ARGV 1 worker, 2 record, 3 TTL in ms: first register it;
-- with ARGV 1 alone: first drop it. KEYS 1 records, 2 ends.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[3]), ARGV[1])
elseif ARGV[1] then
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))) do
  redis.call('HDEL', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
return redis.call('HVALS', KEYS[1])
