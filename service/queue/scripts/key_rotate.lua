-- Give a key another secret → 'rotated', or why not: 'unknown', 'revoked', 'expired'. Those that it has end after
-- overlap_ms, or sooner if that was said before. A call whose reply was lost may come again.
local digests, revoked, expires = unpack(redis.call('HMGET', KEY, 'digests', 'revoked_ms', 'expires_ms'))
if not digests then
  return 'unknown'
elseif revoked then
  return 'revoked'
elseif passed(expires) then
  return 'expired'
elseif redis.call('HEXISTS', SECRETS, digest) == 1 then
  return 'rotated'
end

local kept = {digest}
for old in digests:gmatch('%S+') do
  local before = tonumber(redis.call('HGET', SECRETS, old):match('%d+$'))
  local ends = before > 0 and math.min(before, now + overlap_ms) or now + overlap_ms
  if ends > now then
    redis.call('HSET', SECRETS, old, id .. ' ' .. integer(ends))
    kept[#kept + 1] = old
  else
    redis.call('HDEL', SECRETS, old)
  end
end
redis.call('HSET', SECRETS, digest, id .. ' 0')
redis.call('HSET', KEY, 'digests', table.concat(kept, ' '))
return 'rotated'
