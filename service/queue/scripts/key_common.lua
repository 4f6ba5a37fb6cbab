-- Put in front of every script about API keys. Redis TIME is the only clock that processes compare.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function integer(number)
  return string.format('%.0f', number)
end

-- Whether a moment in ms has come; none and 0 never come.
local function passed(moment)
  local ms = tonumber(moment or 0)
  return ms > 0 and now >= ms
end
