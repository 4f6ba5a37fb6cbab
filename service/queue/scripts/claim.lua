-- Give a delivered entry's job to a worker → {epoch, attempts, evaluation, created_ms, job, checkpoint or '', now_ms},
-- or nil when there is nothing to run: the entry is then removed. ``lost``: attempts to add if it was running.
local status, stream, place, previous, attempts, cancel = unpack(
  redis.call('HMGET', JOB, 'status', 'stream', 'entry', 'claim', 'attempts', 'cancel'))

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
  if attempts > tonumber(max_attempts) then
    local reason = 'given up after ' .. max_attempts .. ' attempts: each worker that ran it was lost'
    redis.call('XADD', DEAD, 'MAXLEN', '~', 1000, '*', 'job', id, 'reason', reason,
      'worker', redis.call('HGET', JOB, 'worker'), 'record', redis.call('HGET', JOB, 'job'))
    redis.call('HINCRBY', COUNTERS, 'dead_lettered', 1)
    finish('failed', failure_of('given-up', reason))
    remove(entry)
    return false
  end
  redis.call('HSET', JOB, 'status', 'running', 'attempts', attempts, 'worker', worker, 'claim', claim)
  redis.call('HSETNX', JOB, 'started_ms', integer(now_ms()))
  changed()
end
redis.call('XCLAIM', STREAM, GROUP, worker, 0, entry, 'JUSTID')
local lease = redis.call('HMGET', JOB, 'epoch', 'attempts', 'evaluation', 'created_ms', 'job', 'checkpoint')
lease[6] = lease[6] or ''
lease[7] = integer(now_ms())
return lease
