-- Put the rows of one request behind those that its caller, and everybody, asked before; tell what came in between.
-- Records are rings: the last WINDOW distinct rows, numbered from the record's birth. Nothing is computed here but
-- order: what lies near is for the worker to find (proxy/detection/shared_sequence.py). `now`, in microseconds, is set
-- by the line before this one.
--
-- KEYS[1]  names the detector. Its records: `:all` is everybody's and `:of:<caller>` a caller's, each a hash with `born`,
--          `count`, a slot for each row, and the identities of the rows in it; `:callers` orders callers by when they
--          last asked
-- ARGV[1]  caller (32 characters); as doubles: the caller's record as the worker knows it (born, count), everybody's
--          (born, count), both windows (rows), how many callers are kept, how long (milliseconds), whether nearness
--          counts; then the rows: flags, identity (8 bytes), sketch
-- returns  as doubles: now (seconds), callers forgotten; born, number of the first row and rows of the caller's record,
--          and of everybody's; for each row asked 0 known, 1 new, 2 new to everybody; the rows of both records
local HEADER, IDENTITY, SKETCH = '<c32ddddddddd', 8, 256
local caller, born, count, all_born, all_count, window, all_window, callers, life, near, at =
  struct.unpack(HEADER, ARGV[1])

local function open(key, window, born, count)
  local facts = redis.call('HMGET', key, 'born', 'count')
  local ring = {key = key, window = window, born = tonumber(facts[1]) or now, count = tonumber(facts[2]) or 0}
  if ring.born == born and ring.count < count then ring.born = now end -- an older copy: nobody's numbers hold
  if ring.born ~= born then count = 0 end
  ring.first = math.max(count, ring.count - window)
  local slots = {}
  for number = ring.first, ring.count - 1 do
    slots[#slots + 1] = 's' .. (number % window)
  end
  ring.rows = #slots > 0 and redis.call('HMGET', key, unpack(slots)) or {}
  return ring
end

local function knows(ring, identity)
  return redis.call('HEXISTS', ring.key, identity) == 1
end

local function put(ring, identity, row)
  local slot = 's' .. (ring.count % ring.window)
  if ring.count >= ring.window then
    redis.call('HDEL', ring.key, string.sub(redis.call('HGET', ring.key, slot), 1, IDENTITY))
  end
  ring.count = ring.count + 1
  redis.call('HSET', ring.key, slot, row, identity, '')
end

local function keep(ring)
  redis.call('HSET', ring.key, 'born', string.format('%.0f', ring.born), 'count', string.format('%.0f', ring.count))
  redis.call('PEXPIRE', ring.key, math.max(life, redis.call('PTTL', ring.key)))
end

local own, all = open(KEYS[1] .. ':of:' .. caller, window, born, count), open(KEYS[1] .. ':all', all_window, all_born, all_count)
local taken = {}
for start = at, #ARGV[1], 1 + IDENTITY + SKETCH do
  local flags, identity = string.byte(ARGV[1], start), string.sub(ARGV[1], start + 1, start + IDENTITY)
  local sketch = string.sub(ARGV[1], start + 1 + IDENTITY, start + IDENTITY + SKETCH)
  local kind = '\0'
  if not knows(own, identity) then
    local fresh = near == 1 and not knows(all, identity)
    kind = fresh and '\2' or '\1'
    put(own, identity, identity .. struct.pack('<ddB', all.count, now / 1000000, flags + (fresh and 2 or 0)) .. sketch)
    if fresh then put(all, identity, identity .. sketch) end
  end
  taken[#taken + 1] = kind
end
keep(own)
keep(all)

local order, forgotten = KEYS[1] .. ':callers', 0
redis.call('ZADD', order, string.format('%.0f', now), caller)
redis.call('PEXPIRE', order, math.max(life, redis.call('PTTL', order)))
while redis.call('ZCARD', order) > callers do
  forgotten = forgotten + redis.call('DEL', KEYS[1] .. ':of:' .. redis.call('ZPOPMIN', order)[1])
end

local head = struct.pack('<dddddddd', now / 1000000, forgotten, own.born, own.first, #own.rows, all.born, all.first, #all.rows)
return head .. table.concat(taken) .. table.concat(own.rows) .. table.concat(all.rows)
