-- Accept a job, whole or not at all → {'created' | 'existing' | 'other payload' | 'full', job id}.
-- KEYS 7 the other class's active set, 8 9 the model's other streams, 10 idempotency (absent: none).
-- ARGV 3 job, 4 evaluations, 5 priority, 6 deadline_ms or '', 7 capacity, 8 payload hash, 9 idempotency TTL in s.
local capacity = tonumber(ARGV[7])

if KEYS[10] then
  local owner, payload = unpack(redis.call('HMGET', KEYS[10], 'job', 'payload'))
  -- Our own id: this call was already carried out and only its reply was lost.
  if owner and owner ~= ID then
    return {payload == ARGV[8] and 'existing' or 'other payload', owner}
  end
end
if redis.call('EXISTS', JOB) == 1 then
  return {'created', ID}
end

-- Cancelled jobs free their place at once, but their entries stay until read: these are bounded as well.
local active = redis.call('ZCARD', ACTIVE) + redis.call('ZCARD', KEYS[7])
local entries = redis.call('XLEN', STREAM) + redis.call('XLEN', KEYS[8]) + redis.call('XLEN', KEYS[9])
if active >= capacity or entries >= 2 * capacity then
  return {'full', ID}
end

local now = now_ms()
local entry = redis.call('XADD', STREAM, '*', 'job', ID, 'priority', ARGV[5])
redis.call('HSET', JOB, 'job', ARGV[3], 'status', 'queued', 'stream', STREAM, 'entry', entry, 'epoch', 0,
  'attempts', 0, 'evaluation', 0, 'evaluations', ARGV[4], 'committed', 0, 'created_ms', integer(now))
if ARGV[6] ~= '' then
  redis.call('HSET', JOB, 'deadline_at_ms', integer(now + ARGV[6]))
end
redis.call('ZADD', ACTIVE, integer(now), ID)
if KEYS[10] then
  redis.call('HSET', KEYS[10], 'job', ID, 'payload', ARGV[8])
  redis.call('EXPIRE', KEYS[10], ARGV[9])
end
changed()
return {'created', ID}
