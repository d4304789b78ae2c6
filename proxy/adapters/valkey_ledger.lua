-- Charge, or settle, every window of one account's budget at once. The twin of proxy/budget: the arithmetic is that of
-- windows.py, and tests/budget/test_twins.py holds the two together. `now`, in microseconds, is set by the line before
-- this one (see valkey_ledger.py). Every number here is a whole one below 2^53, so that Lua's doubles are exact.
--
-- KEYS[1]  hash: `revision`, and for each window its slices, oldest first: {number, units, number, units, ...}
-- ARGV[1]  {slices a window, when the charge to settle was made or false to charge, windows}, and for each window
--          {name, slice width (microseconds), limit, units}; to settle, units is the difference: below zero gives back
-- returns  {written, revision, now, the slices of each window in the order of ARGV}
-- Arrays travel and rest as MessagePack: one argument and one reply cost the proxy half of what twenty do.
local slices, at, windows = unpack(cmsgpack.unpack(ARGV[1]))
local names = {'revision'}
for i, window in ipairs(windows) do
  windows[i] = {name = window[1], width = window[2], limit = window[3], units = window[4]}
  names[i + 1] = window[1]
end

local stored = redis.call('HMGET', KEYS[1], unpack(names))
local revision = tonumber(stored[1] or 0)

-- Tally.turn, Tally.covers
local covered, life = true, 0
for i, window in ipairs(windows) do
  local old = stored[i + 1] and cmsgpack.unpack(stored[i + 1]) or {}
  local current = math.max(math.floor(now / window.width), old[#old - 1] or 0)
  local tally, total, first = {}, 0, current - slices
  for j = 1, #old, 2 do
    if old[j] >= first then
      tally[#tally + 1], tally[#tally + 2] = old[j], old[j + 1]
      total = total + old[j + 1]
    end
  end
  window.tally, window.current = tally, current
  life = math.max(life, (slices + 1) * window.width)
  if window.units ~= 0 and total + window.units > window.limit then covered = false end
end

-- Tally.add
local function add(tally, current, units)
  local newest = #tally - 1
  if tally[newest] == current then
    tally[newest + 1] = tally[newest + 1] + units
  else
    tally[newest + 2], tally[newest + 3] = current, units
  end
end

-- Tally.take_back
local function take_back(tally, charged, units)
  for i = 1, #tally, 2 do
    if tally[i] == charged then
      tally[i + 1] = tally[i + 1] - units
      if tally[i + 1] <= 0 then table.remove(tally, i); table.remove(tally, i) end
      return
    end
  end
end

local write = at and true or covered
if write then
  for _, window in ipairs(windows) do
    if window.units > 0 then
      add(window.tally, window.current, window.units)
    elseif window.units < 0 then
      take_back(window.tally, math.floor(at / window.width), -window.units)
    end
  end
  if not at then revision = revision + 1 end
end

local tallies, fields = {}, {'revision', string.format('%.0f', revision)}
for i, window in ipairs(windows) do
  tallies[i] = window.tally
  fields[#fields + 1] = window.name
  fields[#fields + 1] = cmsgpack.pack(window.tally)
end
if write then
  redis.call('HSET', KEYS[1], unpack(fields))
  -- Whole milliseconds, rounded up; a budget that was longer before a reload keeps its longer life.
  redis.call('PEXPIRE', KEYS[1], math.max(math.ceil(life / 1000) + 1, redis.call('PTTL', KEYS[1])))
end
return cmsgpack.pack({write, revision, now, tallies})
