-- Have previews made of a job, unless it has ended: for ``whose``, 'askers' or 'everybody'; the worker hears of it with
-- its next report.
local status, finished, before = unpack(redis.call('HMGET', JOB, 'status', 'finished_ms', 'preview'))
if status and not finished and before ~= 'everybody' then
  redis.call('HSET', JOB, 'preview', whose)
end
