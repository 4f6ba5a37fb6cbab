-- End a running job: store what it leaves, then acknowledge → 'done' | 'stale'.
-- KEYS 7 images. ARGV 3 epoch, 4 entry, 5 status, 6 reason, 7 result or '', then the images.
local epoch, status = unpack(redis.call('HMGET', JOB, 'epoch', 'status'))
-- The same end by the same worker again: its reply was lost.
if epoch == ARGV[3] and status == ARGV[5] then
  return 'done'
end
if not holds(ARGV[3]) then
  return 'stale'
end

if ARGV[7] ~= '' then
  redis.call('HSET', JOB, 'result', ARGV[7])
end
for index = 8, #ARGV do
  redis.call('HSET', KEYS[7], index - 8, ARGV[index])
end
redis.call('EXPIRE', KEYS[7], RESULT_TTL_S)
finish(ARGV[5], ARGV[6])
remove(ARGV[4])
return 'done'
