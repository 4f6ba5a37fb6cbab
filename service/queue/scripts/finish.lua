-- End a running job: store what it leaves, then acknowledge → 'done' | 'late' | 'stale'.
-- ``failure`` (a messages.Failure) and ``result`` are '' where there is none; ``files`` are the encoded pictures, '' for
-- one that is elsewhere, as ``result`` says; ``bytes``: of all of them, wherever they are.
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
for index, file in ipairs(files) do
  if file ~= '' then
    redis.call('HSET', IMAGES, index - 1, file)
  end
end
redis.call('EXPIRE', IMAGES, result_ttl_s)
finish(status, failure ~= '' and failure or nil, tonumber(bytes))
remove(entry)
return 'done'
