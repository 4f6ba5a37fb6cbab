-- Renew a lease and, with an event or a checkpoint, record how far the job is → 'go on' | 'show' | 'cancel' | 'late' |
-- 'stale'. Who is told to show the job goes on, and somebody wants previews of it.
-- ``checkpoint`` is '' where there is none; ``trial`` is 1 when from now on nothing else runs beside the job, else '';
-- ``evaluation`` and what follows are an event, nil where there is none.
if not holds(epoch) then
  return 'stale'
end
if late() then
  fail_late()
  remove(entry)
  return 'late'
end

local worker, announced, cancel, preview = unpack(
  redis.call('HMGET', JOB, 'worker', 'evaluation', 'cancel', 'preview'))
redis.call('XCLAIM', STREAM, GROUP, worker, 0, entry, 'JUSTID')
if checkpoint ~= '' then
  redis.call('HSET', JOB, 'checkpoint', checkpoint)
end
if trial ~= '' then
  redis.call('HSET', JOB, 'tried', trial)
end
-- A resumed job repeats evaluations that were announced already.
if evaluation and tonumber(evaluation) > tonumber(announced) then
  redis.call('HSET', JOB, 'evaluation', evaluation, 'committed', committed)
  announce(0, evaluation, evaluations, committed, status, detail)
  changed()
end
return cancel and 'cancel' or preview and 'show' or 'go on'
