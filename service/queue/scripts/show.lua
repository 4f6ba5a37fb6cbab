-- Keep the newest previews of a running job, which end with it, and tell who follows it. They make way when memory is short, and a worker that
-- lost the job hears of that elsewhere.
local present, status = unpack(redis.call('HMGET', JOB, 'epoch', 'status'))
if present == epoch and status == 'running' and not nearly_full() then
  redis.call('HSET', JOB, 'previews', previews)
  changed()
end
