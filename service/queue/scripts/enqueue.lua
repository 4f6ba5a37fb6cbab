-- Accept a job, whole or not at all → {outcome, job id, ms until all that was spent has come back, ms to wait}. Outcomes:
-- 'created', 'existing', 'other payload'; 'full', 'shed', 'no memory', 'webhooks wait': our limits; those of ``refusal``: the owner's.
-- ``unsure_ms``: for so long its client may be told yet that it was not accepted, and nobody gets word of its end.
-- OTHER_ACTIVE: of the other class. No IDEMPOTENCY: no key was given.
-- Durable mode waits with WAIT, which promises something only about what its own connection wrote. So whoever is told of
-- a job that is there already writes as well: what stands there.
capacity, cost, weight = tonumber(capacity), tonumber(cost), tonumber(weight)
-- Jobs that can wait are refused before those for which somebody waits.
local BATCH_SHARE = 0.8
-- Webhooks that are not answered yet: of one owner, and of all.
local WEBHOOKS_OF_OWNER, WEBHOOKS = 1000, 10000
local WEBHOOK_LOOK_MS = 60000
local now = now_ms()
look_at_owned(owner)
if webhook ~= '' then
  look_at_webhooks(owner)
end
local bill = spending(now)

local function answer(outcome, job, wait_ms)
  return {outcome, job or id, math.ceil(bill.debt_ms), math.ceil(wait_ms or 0)}
end

if IDEMPOTENCY then
  local first, known_payload = unpack(redis.call('HMGET', IDEMPOTENCY, 'job', 'payload'))
  -- Our own id: this call was already carried out and only its reply was lost.
  if first and first ~= id then
    redis.call('HSET', IDEMPOTENCY, 'payload', known_payload)
    return answer(known_payload == payload and 'existing' or 'other payload', first)
  end
end
if redis.call('EXISTS', JOB) == 1 then
  redis.call('HSET', JOB, 'evaluations', redis.call('HGET', JOB, 'evaluations'))
  return answer('created')
end

local active = redis.call('ZCARD', ACTIVE) + redis.call('ZCARD', OTHER_ACTIVE)
local why, wait_ms = refusal(now, active, bill)
if why then
  return answer(why, id, wait_ms)
end
if active >= capacity then
  return answer('full')
end
if priority == 'batch' and active >= BATCH_SHARE * capacity then
  return answer('shed')
end
-- What is accepted must be able to end: its events and pictures need room, too.
if nearly_full() then
  return answer('no memory')
end

if webhook ~= '' then
  local own = owned(owner, 'webhooks')
  redis.call('ZREMRANGEBYSCORE', own, '-inf', integer(now - WEBHOOK_KEPT_S * 1000))
  if redis.call('ZCARD', own) >= WEBHOOKS_OF_OWNER or redis.call('ZCARD', WEBHOOKS_DUE) >= WEBHOOKS then
    return answer('webhooks wait')
  end
end

spend(now, bill)
redis.call('HSET', JOB, 'job', record, 'status', 'queued', 'stream', STREAM, 'entry', '', 'epoch', 0,
  'attempts', 0, 'evaluation', 0, 'evaluations', evaluations, 'committed', 0, 'created_ms', integer(now),
  'priority', priority, 'rows', rows, 'share', enter_the_order(), 'owner', owner)
redis.call('ZADD', owned(owner, 'jobs'), integer(now), id)
if bill.takes_ms > 0 then  -- in case that it is withdrawn
  redis.call('HSET', JOB, 'takes_ms', integer(bill.takes_ms))
end
if webhook ~= '' then
  redis.call('HSET', JOB, 'webhook', webhook, 'unsure_until_ms', integer(now + unsure_ms))
  local look_ms = math.min(tonumber(deadline_ms) or WEBHOOK_LOOK_MS, WEBHOOK_LOOK_MS)
  redis.call('ZADD', WEBHOOKS_DUE, integer(now + look_ms), id)
  expect_webhook(owner, now)
end
if preview ~= '' then  -- as preview.lua has it, but before any worker can take the job
  redis.call('HSET', JOB, 'preview', preview)
end
if image then  -- the picture that it starts from
  redis.call('HSET', JOB, 'image', image, 'mask', mask)
end
if deadline_ms ~= '' then
  redis.call('HSET', JOB, 'deadline_at_ms', integer(now + deadline_ms))
end
redis.call('ZADD', ACTIVE, integer(now), id)
if IDEMPOTENCY then
  redis.call('HSET', IDEMPOTENCY, 'job', id, 'payload', payload)
  redis.call('EXPIRE', IDEMPOTENCY, idempotency_ttl_s)
end
redis.call('XADD', BELL, 'MAXLEN', 1, '*', 'job', id)
changed()
return answer('created')
