-- End a running job: store what it leaves, then acknowledge → 'done' | 'late' | 'stale'.
-- ``failure`` (a messages.Failure) and ``result`` are '' where there is none; ``files`` are the encoded pictures.
local present, now = unpack(redis.call('HMGET', JOB, 'epoch', 'status'))
-- The same end by the same worker again: its reply was lost.
if present == epoch and now == status then
  return 'done'
end
if not holds(epoch) then
  return 'stale'
end
-- However short the job: what is not there by its deadline does not count, as when a report finds it late.
if status == 'succeeded' and late() then
  fail_late()
  remove(entry)
  return 'late'
end

if result ~= '' then
  redis.call('HSET', JOB, 'result', result)
end
local bytes = 0
for index, file in ipairs(files) do
  redis.call('HSET', IMAGES, index - 1, file)
  bytes = bytes + #file
end
redis.call('EXPIRE', IMAGES, result_ttl_s)
finish(status, failure ~= '' and failure or nil, bytes)
remove(entry)
return 'done'
