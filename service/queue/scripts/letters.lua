-- Put in front of scripts that write dead letters. A letter may hold a prompt, so none is kept for longer than a week.
local LETTERS_KEPT_S = 7 * 86400

local function dead_letter(...)
  local oldest_s = redis.call('TIME')[1] - LETTERS_KEPT_S
  redis.call('XADD', DEAD, 'MAXLEN', '~', 1000, '*', ...)
  redis.call('XTRIM', DEAD, 'MINID', string.format('%.0f', oldest_s * 1000))
  redis.call('EXPIRE', DEAD, LETTERS_KEPT_S)
end
