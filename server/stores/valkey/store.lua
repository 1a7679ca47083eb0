-- What happens inside Valkey or Redis, atomically: the rules of fencing.py where the data is.
--
-- Why not decided in Python, as for the other stores: measured in one run on two cores, with entries read, decided upon and
-- put back by a script that compares whole entries and does nothing else, a write of 10,000 checkpoints took 1.1 to 2.2
-- times as long as with this script (1.65 in the median), a claim of 1,000 sequences 1.2 to 2.0 times. Reading 10,000
-- entries alone takes 0.6 of such a write. One conformance test holds this script to the decisions in Python.
--
-- Keys, all under one prefix with one hash tag, so that all are in one slot:
--   PREFIX:sequence:ID    hash: digest owner model fence touched awake steps bytes, while it is kept;
--                               digest owner model fence step reason until, once it is gone (a tombstone)
--   PREFIX:checkpoint:ID  hash: step -> the checkpoint
--   PREFIX:touched        sorted set: ID of the parked by the time since when they are
--   PREFIX:owner:OWNER    likewise, of one owner
--   PREFIX:owners:ADDRESS sorted set: owner by how many of its sequences are parked; ADDRESS is what stands before its
--                         first space
--   PREFIX:addresses      sorted set: ADDRESS by how many sequences of all its owners are parked
--   PREFIX:awake          sorted set: ID of the others by when their owner last said that they are awake
--   PREFIX:awake_of       hash: owner -> how many of them
--   PREFIX:bytes          hash: owner -> bytes of checkpoints
--   PREFIX:total          bytes of all checkpoints
--   PREFIX:tombstones     sorted set: ID of the tombstones by when they fall
--   PREFIX:tombstones:OWNER  likewise, of one owner
--   PREFIX:time           the store's time, see observed.py
--   PREFIX:writer:WRITER  the number of its last call
--   PREFIX:damaged:ID     what was PREFIX:sequence:ID and means nothing
-- What earlier releases wrote: a sequence without `awake` is one of the parked, tombstones without an owner fall by
-- themselves, and without PREFIX:time, or where there is a PREFIX:parked, owners and addresses are not ranked.
--
-- KEYS[1]: PREFIX:touched. ARGV: verb, writer, the number of its call, now, how far the store's time must be ('' if that is
-- not known), the retention, the lease, for how many seconds a tombstone stands, how many an owner has at most, how many
-- checkpoints are kept, and what the verb takes.
-- Answers with the number of the writer's last call as it was before and as it is after (one that is lower than the writer
-- knows tells that data was lost), the store's time, the ids that were found damaged, and what the verb has to say.
-- Numbers are doubles here: fences, steps and times are passed on as the text that they came as, and only compared.

local touched = KEYS[1]
local prefix = string.sub(touched, 1, -8)
local verb, writer, call, now, proposed = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local retention, lease, tombstone, most, keep =
  tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local FIRST = 11
local WRITER = 86400 -- seconds for which no network holds back what was sent
local damaged = {}

local function text(number)
  return string.format('%.0f', number)
end

local function exact(number)
  return string.format('%.17g', number)
end

-- The store's time: as it was kept, or as far as the server says, or, of data from before there was one, when that was
-- touched last.
local function observed()
  local time, last = redis.call('GET', prefix .. 'time'), tonumber(proposed)
  if not time then
    for _, set in ipairs({ touched, prefix .. 'awake' }) do
      local score = tonumber(redis.call('ZREVRANGE', set, 0, 0, 'WITHSCORES')[2])
      time = score and math.max(score, time or score) or time
    end
  end
  time = tonumber(time)
  return time and math.max(time, last or time) or last or now
end

local is_ranked = redis.call('EXISTS', prefix .. 'time') == 1 and redis.call('EXISTS', prefix .. 'parked') == 0
local time = observed()
local cutoff, lapse = time - retention, time - lease

-- Takes what means nothing out of the way, unless this call is one that only looks.
local function set_aside(id)
  if verb ~= 'read' and verb ~= 'page' then
    redis.call('RENAME', prefix .. 'sequence:' .. id, prefix .. 'damaged:' .. id)
    redis.call('ZREM', touched, id)
    redis.call('ZREM', prefix .. 'awake', id)
    redis.call('ZREM', prefix .. 'tombstones', id)
    local owner = redis.pcall('HGET', prefix .. 'damaged:' .. id, 'owner')
    if type(owner) == 'string' then
      redis.call('ZREM', prefix .. 'owner:' .. owner, id)
    end
    table.insert(damaged, id)
  end
end

-- A sequence as of now, or nil; with a reason if it is gone, and `expired` if it is to all but its owner.
local function look(id)
  local key = prefix .. 'sequence:' .. id
  local f = redis.pcall('HMGET', key, 'fence', 'digest', 'model', 'reason', 'until', 'step', 'owner', 'touched', 'steps', 'bytes', 'awake')
  local whole = not f.err and tonumber(f[1]) and f[2] and f[3]
    and (f[4] and tonumber(f[5]) and f[6] or f[7] and tonumber(f[8]) and f[9] and tonumber(f[10]))
  if not whole then
    if redis.call('EXISTS', key) == 1 then
      set_aside(id)
    end
    return nil
  end
  local found = { id = id, fence = f[1], digest = f[2], model = f[3] }
  if f[4] then
    if tonumber(f[5]) <= time then
      return nil
    end
    found.reason, found.step, found.owner, found.since = f[4], f[6], f[7] or '', f[5]
    return found
  end
  found.owner, found.bytes, found.steps, found.since = f[7], tonumber(f[10]), {}, f[8]
  for step in string.gmatch(f[9], '%d+') do
    table.insert(found.steps, step) -- the newest first
  end
  found.step = found.steps[1] or ''
  found.awake = f[11] == '1'
  found.expired = not found.awake and tonumber(f[8]) <= cutoff
  return found
end

-- How many of an owner's sequences are parked, and of its address, for whose give way.
local function rank(owner)
  local address = string.match(owner, '^[^ ]*')
  local owners, addresses = prefix .. 'owners:' .. address, prefix .. 'addresses'
  local parked = redis.call('ZCARD', prefix .. 'owner:' .. owner)
  local change = parked - tonumber(redis.call('ZSCORE', owners, owner) or 0)
  if parked > 0 then
    redis.call('ZADD', owners, parked, owner)
  else
    redis.call('ZREM', owners, owner)
  end
  if change ~= 0 and tonumber(redis.call('ZINCRBY', addresses, change, address)) <= 0 then
    redis.call('ZREM', addresses, address)
  end
end

local function leave_awake(sequence)
  redis.call('ZREM', prefix .. 'awake', sequence.id)
  if redis.call('HINCRBY', prefix .. 'awake_of', sequence.owner, -1) <= 0 then
    redis.call('HDEL', prefix .. 'awake_of', sequence.owner)
  end
end

local function leave_parked(sequence)
  redis.call('ZREM', touched, sequence.id)
  redis.call('ZREM', prefix .. 'owner:' .. sequence.owner, sequence.id)
  rank(sequence.owner)
end

-- From now on it is awake, or parked; or was parked at an earlier time.
local function touch(sequence, awake, earlier)
  local time = earlier or time
  if awake then
    if not sequence.awake then
      leave_parked(sequence)
      redis.call('HINCRBY', prefix .. 'awake_of', sequence.owner, 1)
    end
    redis.call('ZADD', prefix .. 'awake', exact(time), sequence.id)
  else
    if sequence.awake then
      leave_awake(sequence)
    end
    redis.call('ZADD', touched, exact(time), sequence.id)
    redis.call('ZADD', prefix .. 'owner:' .. sequence.owner, exact(time), sequence.id)
    rank(sequence.owner)
  end
  redis.call('HSET', prefix .. 'sequence:' .. sequence.id, 'fence', sequence.fence, 'touched', exact(time),
    'awake', awake and '1' or '0')
  sequence.awake = awake
end

local function count(owner, change)
  if change ~= 0 then
    redis.call('INCRBY', prefix .. 'total', text(change))
    redis.call('HINCRBY', prefix .. 'bytes', owner, text(change))
  end
end

-- No word is left of a sequence that is gone, of those in this set: `owner` is '' where the set is of all.
local function fall(id, owner)
  local key = prefix .. 'sequence:' .. id
  local f = redis.pcall('HMGET', key, 'reason', 'owner')
  redis.call('ZREM', prefix .. 'tombstones', id)
  redis.call('ZREM', prefix .. 'tombstones:' .. (f[2] or owner), id)
  if f[1] then
    redis.call('DEL', key)
  end
end

local function remember(id, digest, owner, model, fence, step, reason, last)
  redis.call('HSET', prefix .. 'sequence:' .. id, 'digest', digest, 'owner', owner, 'model', model, 'fence', fence,
    'step', step, 'reason', reason, 'until', last)
  redis.call('ZADD', prefix .. 'tombstones', last, id)
  redis.call('ZADD', prefix .. 'tombstones:' .. owner, last, id)
  local of = prefix .. 'tombstones:' .. owner
  local surplus = redis.call('ZCARD', of) - most
  for _, other in ipairs(surplus > 0 and redis.call('ZRANGE', of, 0, surplus - 1) or {}) do
    fall(other, owner)
  end
end

local function bury(sequence, reason, fence)
  local key, owner = prefix .. 'sequence:' .. sequence.id, prefix .. 'owner:' .. sequence.owner
  redis.call('DEL', key, prefix .. 'checkpoint:' .. sequence.id)
  remember(sequence.id, sequence.digest, sequence.owner, sequence.model, fence, sequence.step, reason, exact(time + tombstone))
  if sequence.awake then
    leave_awake(sequence)
  else
    leave_parked(sequence)
  end
  count(sequence.owner, -sequence.bytes)
  if redis.call('EXISTS', owner) == 0 and redis.call('HEXISTS', prefix .. 'awake_of', sequence.owner) == 0 then
    redis.call('HDEL', prefix .. 'bytes', sequence.owner)
  end
end

local function refused(id, fence, creates, digest, anew)
  local sequence = look(id)
  if not sequence then
    return creates and {} or { 'unknown', '0' }
  elseif anew and sequence.digest == digest and tonumber(fence) > tonumber(sequence.fence) then
    if not sequence.reason then
      redis.call('DEL', prefix .. 'checkpoint:' .. id)
      count(sequence.owner, -sequence.bytes)
      sequence.steps, sequence.bytes = {}, 0
    end
    return { sequence = not sequence.reason and sequence or nil }
  elseif sequence.reason then
    return { sequence.reason, sequence.fence }
  elseif creates and sequence.digest ~= digest then
    return { 'not yours', sequence.fence }
  elseif tonumber(fence) < tonumber(sequence.fence) then
    return { 'fenced', sequence.fence }
  end
  return { sequence = sequence }
end

-- Keeps one checkpoint: later steps go, the same is replaced, of the earlier ones the newest and those to spare stay.
local function place(sequence, step, data, spare)
  local key, number, change = prefix .. 'checkpoint:' .. sequence.id, tonumber(step), string.len(data)
  local steps, gone, spared, newest = { step }, {}, {}, 1
  for other in string.gmatch(spare, '%d+') do
    spared[other] = true
  end
  for _, other in ipairs(sequence.steps) do
    if tonumber(other) < number and spared[other] then
      table.insert(steps, other)
    elseif tonumber(other) < number and newest < keep then
      table.insert(steps, other)
      newest = newest + 1
    else
      change = change - redis.call('HSTRLEN', key, other)
      table.insert(gone, other ~= step and other or nil)
    end
  end
  redis.call('HSET', key, step, data) -- first: a full memory lets through whatever follows a removal
  if #gone > 0 then
    redis.call('HDEL', key, unpack(gone))
  end
  count(sequence.owner, change)
  redis.call('HSET', prefix .. 'sequence:' .. sequence.id,
    'steps', table.concat(steps, ' '), 'bytes', text(sequence.bytes + change))
end

-- id, fence, step, data, '1' if it creates the sequence or '2' if it is anew, digest, owner, model, steps to spare, '1' if it is
-- awake
-- -> place in the batch, reason, fence of the refused
local function write()
  local answers = {}
  for at = FIRST, #ARGV, 10 do
    local id, fence, step, data, creation = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local found = refused(id, fence, creation ~= '0', ARGV[at + 5], creation == '2')
    if found[1] then
      table.insert(answers, { (at - FIRST) / 10, found[1], found[2] })
    else
      local sequence = found.sequence
      if not sequence then
        sequence = { id = id, owner = ARGV[at + 6], steps = {}, bytes = 0 }
        local key = prefix .. 'sequence:' .. id
        local before = redis.call('HGET', key, 'owner') -- of its tombstone
        redis.call('HSET', key, 'digest', ARGV[at + 5], 'owner', sequence.owner, 'model', ARGV[at + 7])
        redis.call('HDEL', key, 'reason', 'until', 'step')
        redis.call('PERSIST', key) -- from a tombstone of an earlier release
        redis.call('ZREM', prefix .. 'tombstones', id)
        redis.call('ZREM', prefix .. 'tombstones:' .. (before or ''), id)
      end
      sequence.fence = fence
      place(sequence, step, data, ARGV[at + 8])
      touch(sequence, ARGV[at + 9] == '1')
    end
  end
  return answers
end

-- id, fence, '1' if it is awake -> place in the batch, reason, fence of the refused
local function hold()
  local answers = {}
  for at = FIRST, #ARGV, 3 do
    local fence, awake = ARGV[at + 1], ARGV[at + 2] == '1'
    local found = refused(ARGV[at], fence, false)
    if not found.sequence then
      table.insert(answers, { (at - FIRST) / 3, found[1], found[2] })
    elseif awake or found.sequence.awake then
      found.sequence.fence = fence
      redis.call('ZREM', touched, ARGV[at]) -- a full memory lets through what removes, and then all the rest
      touch(found.sequence, awake)
    end
  end
  return answers
end

-- id, digest -> reason or '', fence, owner, model, step; and the sequence, if it can be had. The digests are of secrets,
-- so how long their comparison takes tells nothing about these.
local function seen(id, digest)
  local sequence = look(id)
  if not sequence then
    return { 'unknown', '', '', '', '' }
  elseif sequence.digest ~= digest then
    return { 'not yours', '', '', '', '' }
  elseif sequence.reason or sequence.expired then
    return { sequence.reason or 'expired', '', '', sequence.model, sequence.step }
  end
  return { '', sequence.fence, sequence.owner, sequence.model, sequence.step }, sequence
end

-- id, digest -> as `seen` has it, and the checkpoints
local function read()
  local answers = {}
  for at = FIRST, #ARGV, 2 do
    local answer, sequence = seen(ARGV[at], ARGV[at + 1])
    for _, step in ipairs(sequence and sequence.steps or {}) do
      table.insert(answer, redis.call('HGET', prefix .. 'checkpoint:' .. sequence.id, step))
    end
    table.insert(answers, answer)
  end
  return answers
end

-- ids -> of each that is there: id, reason or '', digest, owner, model, fence, when it was touched or until when the tombstone
-- stands, '1' if it is awake, its steps, and its checkpoints
local function page()
  local answers = {}
  for at = FIRST, #ARGV do
    local sequence = look(ARGV[at])
    if sequence then
      local steps = sequence.reason and sequence.step or table.concat(sequence.steps, ' ')
      local answer = { sequence.id, sequence.reason or '', sequence.digest, sequence.owner, sequence.model,
        sequence.fence, sequence.since, sequence.awake and '1' or '0', steps }
      for _, step in ipairs(sequence.steps or {}) do
        table.insert(answer, redis.call('HGET', prefix .. 'checkpoint:' .. sequence.id, step))
      end
      table.insert(answers, answer)
    end
  end
  return answers
end

-- Whether what is here is newer than a record, or awake, or another's.
local function stays(sequence, digest, fence, since, reason)
  local ours, theirs = tonumber(sequence.fence), tonumber(fence)
  return sequence.awake or sequence.digest ~= digest or ours > theirs
    or reason == '' and ours == theirs and tonumber(sequence.since) > tonumber(since)
end

-- id, reason or '', digest, owner, model, fence, when it was touched, seconds since then or for which the tombstone stands,
-- steps, and how many pairs of a step and a checkpoint follow -> 'put', 'kept' or 'gone'
local function put()
  local answers, at = {}, FIRST
  while at <= #ARGV do
    local id, reason, digest, owner, model, fence = unpack(ARGV, at, at + 5)
    local since, seconds, steps, pairs_ = ARGV[at + 6], tonumber(ARGV[at + 7]), ARGV[at + 8], tonumber(ARGV[at + 9])
    local here, answer = look(id), 'put'
    if here and here.reason and reason == '' and here.digest == digest and tonumber(fence) > tonumber(here.fence) then
      fall(id, here.owner) -- it began anew
      here = nil
    end
    if here and here.reason then
      answer = 'gone'
    elseif here and stays(here, digest, fence, since, reason) then
      answer = 'kept'
    elseif reason ~= '' and here then
      bury(here, reason, fence)
    elseif reason ~= '' then
      remember(id, digest, owner, model, fence, steps, reason, exact(time + seconds))
    else
      local sequence = here or { id = id, owner = owner }
      if here then
        redis.call('DEL', prefix .. 'checkpoint:' .. id)
        count(here.owner, -here.bytes)
      end
      local key = prefix .. 'sequence:' .. id
      redis.call('HDEL', key, 'reason', 'until', 'step')
      redis.call('HSET', key, 'digest', digest, 'owner', sequence.owner, 'model', model)
      sequence.fence, sequence.steps, sequence.bytes = fence, {}, 0
      for pair = at + 10, at + 8 + 2 * pairs_, 2 do
        place(sequence, ARGV[pair], ARGV[pair + 1], steps)
        table.insert(sequence.steps, 1, ARGV[pair])
        sequence.bytes = sequence.bytes + string.len(ARGV[pair + 1])
      end
      touch(sequence, false, time - seconds)
    end
    table.insert(answers, answer)
    at = at + 10 + 2 * pairs_
  end
  return answers
end

-- ids -> their fences, '' where there is none
local function fences()
  local answers = {}
  for at = FIRST, #ARGV do
    table.insert(answers, redis.call('HGET', prefix .. 'sequence:' .. ARGV[at], 'fence') or '')
  end
  return answers
end

-- id, digest, the fence that it had when the claim was sent, when that was asked for in milliseconds -> as `seen` has it,
-- with the fence that each has now. All are taken, or none.
local function claim()
  local answers, taken, milliseconds, all = {}, {}, math.floor(now * 1000), true
  for at = FIRST, #ARGV, 4 do
    local before, asked = ARGV[at + 2], tonumber(ARGV[at + 3])
    local answer, sequence = seen(ARGV[at], ARGV[at + 1])
    local fence = sequence and tonumber(sequence.fence)
    if sequence and (sequence.fence ~= before or (asked + 1000 < fence and fence <= milliseconds)) then -- `fencing.LATE`
      answer[1] = 'fenced'
    end
    all = all and answer[1] == ''
    table.insert(answers, answer)
    table.insert(taken, taken[ARGV[at]] or sequence or false)
    taken[ARGV[at]] = sequence
  end
  for place, sequence in ipairs(all and taken or {}) do
    sequence.fence = text(math.max(tonumber(sequence.fence) + 1, milliseconds))
    touch(sequence, true)
    answers[place][2] = sequence.fence
  end
  return answers
end

-- id, fence, reason -> place in the batch, reason, fence of the refused
local function finish()
  local answers = {}
  for at = FIRST, #ARGV, 3 do
    local fence, reason = ARGV[at + 1], ARGV[at + 2]
    local found = refused(ARGV[at], fence, false)
    if found.sequence then
      bury(found.sequence, reason, fence)
    elseif found[1] ~= reason or found[2] ~= fence then -- else it is this very end, once more
      table.insert(answers, { (at - FIRST) / 3, found[1], found[2] })
    end
  end
  return answers
end

-- What a sorted set says is kept. Of one that Valkey itself has evicted, against our word, only its age is left.
local function listed(set, id)
  local sequence = look(id)
  if not sequence or sequence.reason then
    redis.call('ZREM', set, id)
    return nil
  end
  return sequence
end

-- Does something with up to so many that were touched last at or before a time -> their ids, and whether there are more
local function each(set, before, limit, done)
  local found, ids = redis.call('ZRANGEBYSCORE', set, '-inf', exact(before), 'LIMIT', 0, limit + 1), {}
  for at = 1, math.min(#found, limit) do
    local sequence = listed(set, found[at])
    if sequence then
      table.insert(ids, found[at])
      done(sequence)
    end
  end
  return ids, #found > limit
end

-- Removes up to so many tombstones -> whether there are more
local function forget(before, limit)
  local found = redis.call('ZRANGEBYSCORE', prefix .. 'tombstones', '-inf', before, 'LIMIT', 0, limit + 1)
  for at = 1, math.min(#found, limit) do
    fall(found[at], '')
  end
  return #found > limit, math.min(#found, limit)
end

-- limit -> whether there are more, which have expired, and whose leases have ended
local function expire()
  local limit = tonumber(ARGV[FIRST])
  local expired, more = each(touched, cutoff, limit, function(sequence)
    bury(sequence, 'expired', sequence.fence)
  end)
  local owners = {}
  local _, others = each(prefix .. 'awake', lapse, limit, function(sequence)
    touch(sequence, false)
    table.insert(owners, sequence.owner)
  end)
  local fallen = forget(exact(time), limit)
  return { (more or others or fallen) and 1 or 0, expired, owners }
end

-- id, since when it was seen to be parked -> id, owner, bytes, reason of those that were not touched since
local function evict()
  local answers = {}
  for at = FIRST, #ARGV, 2 do
    local id, seen = ARGV[at], ARGV[at + 1]
    local score = redis.call('ZSCORE', touched, id)
    local sequence = score and tonumber(score) == tonumber(seen) and listed(touched, id)
    if sequence then
      local reason = sequence.expired and 'expired' or 'evicted'
      bury(sequence, reason, sequence.fence)
      table.insert(answers, { id, sequence.owner, text(sequence.bytes), reason })
    end
  end
  return answers
end

-- What a network held back is not carried out after what the same writer has asked for since.
local last = redis.call('GET', prefix .. 'writer:' .. writer) or '0'
if verb == 'read' then
  return { last, last, exact(time), damaged, read() }
elseif verb == 'page' then
  return { last, last, exact(time), damaged, page() }
elseif verb == 'fences' then
  return { last, last, exact(time), damaged, fences() }
elseif tonumber(call) < tonumber(last) then
  return redis.error_reply('LATE a later call was carried out already')
end
for _, owner in ipairs(is_ranked and {} or redis.call('HKEYS', prefix .. 'bytes')) do
  redis.call('DEL', prefix .. 'parked') -- a full memory lets through what follows a removal
  rank(owner)
end
local verbs = {
  write = write, put = put, claim = claim, hold = hold, ['end'] = finish, expire = expire, evict = evict,
  forget = function()
    local _, count = forget('+inf', tonumber(ARGV[FIRST]))
    return count
  end,
}
local answer = verbs[verb]()
-- a full memory does not mind what makes room
redis.pcall('SET', prefix .. 'time', exact(time))
local set = redis.pcall('SET', prefix .. 'writer:' .. writer, call, 'EX', WRITER)
return { last, set.err and last or call, exact(time), damaged, answer }
