-- Accept a job, whole or not at all → {'created' | 'existing' | 'other payload' | 'full', job id}.
-- OTHER_ACTIVE: of the other class; OTHER_STREAM, THIRD_STREAM: the model's. No IDEMPOTENCY: no key was given.
-- Durable mode waits with WAIT, which promises something only about what its own connection wrote. So whoever is told of
-- a job that is there already writes as well: what stands there.
capacity = tonumber(capacity)

if IDEMPOTENCY then
  local owner, known_payload = unpack(redis.call('HMGET', IDEMPOTENCY, 'job', 'payload'))
  -- Our own id: this call was already carried out and only its reply was lost.
  if owner and owner ~= id then
    redis.call('HSET', IDEMPOTENCY, 'payload', known_payload)
    return {known_payload == payload and 'existing' or 'other payload', owner}
  end
end
if redis.call('EXISTS', JOB) == 1 then
  redis.call('HSET', JOB, 'job', record)
  return {'created', id}
end

-- Cancelled jobs free their place at once, but their entries stay until read: these are bounded as well.
local active = redis.call('ZCARD', ACTIVE) + redis.call('ZCARD', OTHER_ACTIVE)
local entries = redis.call('XLEN', STREAM) + redis.call('XLEN', OTHER_STREAM) + redis.call('XLEN', THIRD_STREAM)
if active >= capacity or entries >= 2 * capacity then
  return {'full', id}
end

-- What is accepted must be able to end: its events and pictures need room, too.
if nearly_full() then
  return {'no memory', id}
end

local now = now_ms()
local entry = redis.call('XADD', STREAM, '*', 'job', id, 'priority', priority, 'rows', rows)
redis.call('HSET', JOB, 'job', record, 'status', 'queued', 'stream', STREAM, 'entry', entry, 'epoch', 0,
  'attempts', 0, 'evaluation', 0, 'evaluations', evaluations, 'committed', 0, 'created_ms', integer(now))
if deadline_ms ~= '' then
  redis.call('HSET', JOB, 'deadline_at_ms', integer(now + deadline_ms))
end
redis.call('ZADD', ACTIVE, integer(now), id)
if IDEMPOTENCY then
  redis.call('HSET', IDEMPOTENCY, 'job', id, 'payload', payload)
  redis.call('EXPIRE', IDEMPOTENCY, idempotency_ttl_s)
end
changed()
return {'created', id}
