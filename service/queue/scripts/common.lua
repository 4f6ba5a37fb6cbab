-- Put in front of every script about one job, behind the names of its keys and arguments.
local GROUP = 'workers'
-- A client that was away for longer misses the oldest progress, never the newest nor the end.
local EVENTS_KEPT = 1024

-- Redis TIME is the only clock that processes compare.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function integer(number)
  return string.format('%.0f', number)
end

local function terminal(status)
  return status == 'succeeded' or status == 'failed' or status == 'cancelled'
end

local function announce(sequence, evaluation, evaluations, committed, status, detail)
  local fields = {'evaluation', evaluation, 'evaluations', evaluations, 'committed', committed, 'status', status}
  if detail ~= '' then
    fields[9], fields[10] = 'detail', detail
  end
  redis.call('XADD', EVENTS, 'MAXLEN', EVENTS_KEPT, evaluation .. '-' .. sequence, unpack(fields))
end

-- What is kept of the owner of a job: 'jobs', 'ended' or 'used', as keys.py has them.
local function owned(owner, what)
  return '{vqd}:owner:' .. owner .. ':' .. what
end

-- While a cluster moves our slot, Redis refuses a script whose key has gone: one of a declared key before it begins, any
-- other one in the middle, when something is written already. So these are looked at first.
local function look_at_owned(owner)
  redis.call('EXISTS', owned(owner, 'jobs'), owned(owner, 'ended'), owned(owner, 'used'))
end

-- Let it expire, but not before ``seconds``.
local function keep_for(key, seconds)
  if redis.call('TTL', key) < tonumber(seconds) then
    redis.call('EXPIRE', key, seconds)
  end
end

-- Count no longer what has expired of an owner's ended jobs.
local function forget_expired(owner, now)
  local ended, used = owned(owner, 'ended'), owned(owner, 'used')
  for _, kept in ipairs(redis.call('ZRANGEBYSCORE', ended, '-inf', integer(now), 'LIMIT', 0, 100)) do
    redis.call('ZREM', ended, kept)
    redis.call('HINCRBY', used, 'bytes', -kept:match(' (%d+)$'))
  end
  if redis.call('EXISTS', ended) == 0 then  -- all have gone, perhaps with the record of them
    redis.call('HDEL', used, 'bytes')
  end
end

-- Note that a job of its owner ended, and the bytes of its pictures, for as long as they are kept.
local function keep_ended(owner, now, bytes)
  redis.call('ZREM', owned(owner, 'jobs'), id)
  forget_expired(owner, now)
  redis.call('ZADD', owned(owner, 'ended'), integer(now + result_ttl_s * 1000), id .. ' ' .. bytes)
  keep_for(owned(owner, 'ended'), result_ttl_s)
  if bytes > 0 then
    redis.call('HINCRBY', owned(owner, 'used'), 'bytes', bytes)
    keep_for(owned(owner, 'used'), result_ttl_s)
  end
end

-- Take a job that no worker has read out of the order, and give its owner the turn back.
local function leave_the_order()
  if redis.call('ZREM', ORDER, id) == 1 then
    local owner, share = unpack(redis.call('HMGET', JOB, 'owner', 'share'))
    if redis.call('ZSCORE', TURNS, owner or '') then
      redis.call('ZINCRBY', TURNS, -share, owner or '')
    end
  end
end

-- Those who wait only for the end of a job need not look at every step of it.
local function changed(how)
  redis.call('PUBLISH', CHANNEL, id .. (how or ''))
end

-- At a fill of four fifths no more jobs are accepted, so that those which are can report, end and be cancelled.
local function nearly_full()
  local memory = redis.call('INFO', 'memory')
  local used, most = memory:match('\r\nused_memory:(%d+)'), memory:match('\r\nmaxmemory:(%d+)')
  return tonumber(most) > 0 and tonumber(used) > 0.8 * tonumber(most)
end

-- A messages.Failure.
local function failure_of(kind, message)
  return cjson.encode({kind = kind, message = message})
end

-- What people are told of a failure.
local function words_of(failure)
  local record = cjson.decode(failure)
  local field = record.field
  return (field and field ~= cjson.null) and field .. ': ' .. record.message or record.message
end

-- Have the end of the job posted, if a URL was named: of a copy, since the job may expire before it is answered; and when
-- it is sure that its client knows it.
-- WEBHOOKS_DUE and the copy's key are as keys.py has them.
local WEBHOOKS_DUE, WEBHOOK_KEPT_S = '{vqd}:webhooks', 7 * 86400

local function look_at_webhooks(owner)
  redis.call('EXISTS', WEBHOOKS_DUE, '{vqd}:webhook:' .. id, owned(owner, 'webhooks'))
end

local function expect_webhook(owner, now)
  redis.call('ZADD', owned(owner, 'webhooks'), integer(now), id)
  redis.call('EXPIRE', owned(owner, 'webhooks'), WEBHOOK_KEPT_S)
end

local function forget_webhook(owner)
  redis.call('HDEL', JOB, 'webhook')
  redis.call('DEL', '{vqd}:webhook:' .. id)
  redis.call('ZREM', WEBHOOKS_DUE, id)
  redis.call('ZREM', owned(owner, 'webhooks'), id)
end

local function post_end(owner, now)
  local copy = '{vqd}:webhook:' .. id
  redis.call('COPY', JOB, copy, 'REPLACE')
  redis.call('EXPIRE', copy, WEBHOOK_KEPT_S)
  local unsure_until_ms = tonumber(redis.call('HGET', JOB, 'unsure_until_ms') or 0)
  redis.call('ZADD', WEBHOOKS_DUE, integer(math.max(now, unsure_until_ms)), id)
  expect_webhook(owner, now)
end

-- The one place where a job ends, with a messages.Failure if it failed; ``bytes``: of its pictures, if it has any.
-- The last event gets sequence 1, so it follows progress of the same evaluation.
local function finish(status, failure, bytes)
  local now, owner = now_ms(), redis.call('HGET', JOB, 'owner') or ''
  look_at_owned(owner)
  local webhook = redis.call('HEXISTS', JOB, 'webhook') == 1
  if webhook then
    look_at_webhooks(owner)
  end
  local evaluation, evaluations, committed = unpack(redis.call('HMGET', JOB, 'evaluation', 'evaluations', 'committed'))
  if status == 'succeeded' then
    evaluation, committed = integer(math.max(tonumber(evaluation), tonumber(evaluations))), '1'
  end
  redis.call('HSET', JOB, 'status', status, 'finished_ms', integer(now), 'evaluation', evaluation,
    'committed', committed)
  if failure then
    redis.call('HSET', JOB, 'failure', failure)
  end
  redis.call('HDEL', JOB, 'checkpoint', 'image', 'mask', 'preview', 'previews')
  if webhook then
    post_end(owner, now)
  end
  redis.call('ZREM', ACTIVE, id)
  leave_the_order()
  keep_ended(owner, now, bytes or 0)
  redis.call('HINCRBY', COUNTERS, status, 1)
  announce(1, evaluation, evaluations, committed, status, failure and words_of(failure) or '')
  redis.call('EXPIRE', JOB, result_ttl_s)
  redis.call('EXPIRE', EVENTS, result_ttl_s)
  changed(' ended')
end

-- Deleting after acknowledging, and only what was read: the group's lag stays known.
local function remove(entry)
  redis.call('XACK', STREAM, GROUP, entry)
  redis.call('XDEL', STREAM, entry)
end

-- Whether the caller's epoch is the job's and the job runs; a caller that comes too late is counted.
local function holds(epoch)
  local present, status = unpack(redis.call('HMGET', JOB, 'epoch', 'status'))
  if present == epoch and status == 'running' then
    return true
  end
  redis.call('HINCRBY', COUNTERS, 'fenced', 1)
  return false
end

-- Whether the deadline has passed, since ``by_ms`` if that is given.
local function late(by_ms)
  local deadline = redis.call('HGET', JOB, 'deadline_at_ms')
  return deadline and now_ms() > deadline + (by_ms or 0)
end

local function fail_late()
  finish('failed', failure_of('deadline-passed', 'the deadline passed before the job was finished'))
end

-- Why a report on a running job is refused: 'stale', or 'late', and then the job ends here; nil when it is not.
local function refused(epoch, entry)
  if not holds(epoch) then
    return 'stale'
  end
  if late() then
    fail_late()
    remove(entry)
    return 'late'
  end
end
