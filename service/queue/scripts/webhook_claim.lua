-- Take the webhook that is due for longest, for ``lease_ms`` → {-1, 0, job, attempt, now, receiver, values of
-- ``fields``}, or {-1, ms until one is due, -1 for none}, or, as one call looks at so many only, {how many to pass
-- next, 0}; with the id of a job behind it where its deadline has passed, and somebody has to look whether that ends it.
-- ``busy``: ' owner:ID receiver:HOST … ', of which none is taken. ``passed``: so many are, the longest due.
-- The end of a job is written by whoever ends it; if that is a worker of a version before, the end is found here.
local KEPT_S, LOOK_MS, LATE_LOOK_MS, LOOKED_AT = 7 * 86400, 60000, 1000, 200
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function is_busy(kind, name)
  return busy:find(' ' .. kind .. ':' .. name .. ' ', 1, true)
end

-- The host of a URL; what is written in several ways is several, which the bound of its owner holds.
local function receiver_of(url)
  return ((url or ''):lower():match('^%a+://([^/?#%s]*)') or ''):gsub(':%d+$', '')
end

-- 'ended', its URL and owner; 'late' when its deadline has passed and it has not ended; or nothing.
local function state_of(id)
  local record, job = PREFIX .. id, JOBS .. id
  local url, owner = unpack(redis.call('HMGET', record, 'webhook', 'owner'))
  if url or redis.call('EXISTS', record) == 1 then
    return 'ended', url, owner
  end
  local status, finished, deadline = unpack(redis.call('HMGET', job, 'status', 'finished_ms', 'deadline_at_ms'))
  local left = deadline and deadline - now or LOOK_MS
  if finished and redis.call('COPY', job, record) == 1 then
    redis.call('EXPIRE', record, KEPT_S)
    return 'ended', unpack(redis.call('HMGET', record, 'webhook', 'owner'))
  elseif status then
    local look = left < 0 and LATE_LOOK_MS or math.min(left + 1, LOOK_MS)
    redis.call('ZADD', DUE, string.format('%.0f', now + look), id)
  else  -- nobody has delivered anything for as long as it is kept
    redis.call('ZREM', DUE, id)
  end
  return status and left < 0 and 'late'
end

local first = tonumber(passed)
local looked = redis.call('ZRANGE', DUE, first, first + LOOKED_AT - 1, 'WITHSCORES')
for place = 1, #looked, 2 do
  local id, due = looked[place], looked[place + 1]
  if due - now > 0 then
    return {-1, due - now}
  end
  local state, url, owner = state_of(id)
  if state == 'late' then
    return {first, 0, id}
  elseif state == 'ended' then
    local receiver = receiver_of(url)
    if is_busy('receiver', receiver) or is_busy('owner', owner or '') then
      first = first + 1
    else
      redis.call('ZADD', DUE, string.format('%.0f', now + lease_ms), id)
      local record = PREFIX .. id
      local attempt = redis.call('HINCRBY', record, 'webhook_attempt', 1)
      return {-1, 0, id, attempt, string.format('%.0f', now), receiver, redis.call('HMGET', record, unpack(fields))}
    end
  end
end
if redis.call('ZCARD', DUE) > first then
  return {first, 0}
end
return {-1, -1}
