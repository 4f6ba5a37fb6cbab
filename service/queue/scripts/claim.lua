-- Give a delivered entry's job to a worker → {epoch, attempts, evaluation, created_ms, job, checkpoint or '', now_ms,
-- suspect '0' | '1', whether previews are wanted '0' | '1', image or '', mask or ''}, or nil when there is nothing to run: the entry is then removed.
-- ``lost``: 1 when the worker that ran it was lost, 0 when we ourselves only lost sight of it.
local status, stream, place, previous, attempts, cancel, announced, base, suspect, tried, strikes, blamed = unpack(
  redis.call('HMGET', JOB, 'status', 'stream', 'entry', 'claim', 'attempts', 'cancel', 'evaluation', 'base', 'suspect',
    'tried', 'strikes', 'blamed'))

-- Gone, ended (a tombstone) or handed over since: this entry no longer stands for the job.
if not status or terminal(status) or stream ~= STREAM or place ~= entry then
  remove(entry)
  return false
end

-- The same claim again means that its reply was lost: answer as before.
if previous ~= claim then
  -- Before anything else, so that the worker we take it from is fenced even if the job ends here.
  redis.call('HINCRBY', JOB, 'epoch', 1)
  if cancel then
    finish('cancelled')
    remove(entry)
    return false
  end
  if late() then
    fail_late()
    remove(entry)
    return false
  end
  attempts = attempts + (status == 'queued' and 1 or lost)
  strikes = tonumber(strikes or 0)
  if tonumber(announced) > tonumber(base or 0) then
    -- It moved forward since its last claim: whatever took its worker, it was hardly this job.
    suspect = '0'
  elseif blamed or (status == 'running' and lost == '1') then
    -- A death counts against a job only if nothing else ran beside it; else it may have been a companion.
    strikes = strikes + (tried == '1' and 1 or 0)
    suspect = '1'
  end
  if strikes >= tonumber(max_attempts) then
    local reason = 'given up after ' .. max_attempts
      .. ' attempts: each time it ran alone, its worker or Triton was lost'
    dead_letter('job', id, 'reason', reason, 'worker', redis.call('HGET', JOB, 'worker'),
      'record', redis.call('HGET', JOB, 'job'))
    redis.call('HINCRBY', COUNTERS, 'dead_lettered', 1)
    finish('failed', failure_of('given-up', reason))
    remove(entry)
    return false
  end
  redis.call('HSET', JOB, 'status', 'running', 'attempts', attempts, 'worker', worker, 'claim', claim,
    'base', announced, 'suspect', suspect or '0', 'tried', 0, 'strikes', strikes)
  redis.call('HDEL', JOB, 'blamed')
  redis.call('HSETNX', JOB, 'started_ms', integer(now_ms()))
  changed()
end
redis.call('XCLAIM', STREAM, GROUP, worker, 0, entry, 'JUSTID')
local lease = redis.call('HMGET', JOB, 'epoch', 'attempts', 'evaluation', 'created_ms', 'job', 'checkpoint')
lease[6] = lease[6] or ''
lease[7] = integer(now_ms())
lease[8] = redis.call('HGET', JOB, 'suspect')
lease[9] = redis.call('HEXISTS', JOB, 'preview') == 1 and '1' or '0'
lease[10], lease[11] = redis.call('HGET', JOB, 'image') or '', redis.call('HGET', JOB, 'mask') or ''
return lease
