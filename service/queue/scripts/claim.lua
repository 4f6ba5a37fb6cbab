-- Give a delivered entry's job to a worker → {epoch, attempts, evaluation, created_ms, job, checkpoint or '', now_ms},
-- or nil when there is nothing to run: the entry is then removed.
-- KEYS 7 dead letters. ARGV 3 entry, 4 worker, 5 claim's own id, 6 max attempts, 7 attempts to add if it was running.
local entry, worker, claim = ARGV[3], ARGV[4], ARGV[5]
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
    finish('cancelled', '')
    remove(entry)
    return false
  end
  if late() then
    finish('failed', 'the deadline passed before the job was finished')
    remove(entry)
    return false
  end
  attempts = attempts + (status == 'queued' and 1 or ARGV[7])
  if attempts > tonumber(ARGV[6]) then
    local reason = 'given up after ' .. ARGV[6] .. ' attempts: each worker that ran it was lost'
    redis.call('XADD', KEYS[7], 'MAXLEN', '~', 1000, '*', 'job', ID, 'reason', reason,
      'worker', redis.call('HGET', JOB, 'worker'), 'record', redis.call('HGET', JOB, 'job'))
    redis.call('HINCRBY', COUNTERS, 'dead_lettered', 1)
    finish('failed', reason)
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
