-- Renew a lease and, with an event or a checkpoint, record how far the job is → 'go on' | 'cancel' | 'late' | 'stale'.
-- ARGV 3 epoch, 4 entry, 5 checkpoint or '', then perhaps an event: 6 evaluation, 7 evaluations, 8 committed, 9 status, 10 detail.
if not holds(ARGV[3]) then
  return 'stale'
end
if late() then
  finish('failed', 'the deadline passed before the job was finished')
  remove(ARGV[4])
  return 'late'
end

local worker, evaluation, cancel = unpack(redis.call('HMGET', JOB, 'worker', 'evaluation', 'cancel'))
redis.call('XCLAIM', STREAM, GROUP, worker, 0, ARGV[4], 'JUSTID')
if ARGV[5] ~= '' then
  redis.call('HSET', JOB, 'checkpoint', ARGV[5])
end
-- A resumed job repeats evaluations that were announced already.
if ARGV[6] and tonumber(ARGV[6]) > tonumber(evaluation) then
  redis.call('HSET', JOB, 'evaluation', ARGV[6], 'committed', ARGV[8])
  announce(0, unpack(ARGV, 6, 10))
  changed()
end
return cancel and 'cancel' or 'go on'
