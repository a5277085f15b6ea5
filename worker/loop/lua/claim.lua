-- Claim due jobs for one worker: who they are, their bodies and try numbers, in one round trip.
--
-- A claimed job leaves the head of the queue: its score becomes the end of its lease. So a claim
-- reads as many members as there are free slots, however many jobs run in the fleet, and a job
-- whose worker died is due again by itself.
--
-- A claim is counted when it is made, and the count is deleted with any end of the run. Where there
-- is a count already, a process died under the job: it is a suspect. A claim ends with its first
-- suspect, whose own claim is counted once it runs (open.lua).
--
-- Whatever clients wrote is read before the first write for a job. What cannot be a job is set
-- aside, and the next member is looked at.
--
-- KEYS: queue, bell
-- ARGV: worker, lease_ms, want, read_aborts (1 or 0), passed_max, take_suspects (1 or 0),
--   body_max, bytes_max, [id ...] to claim only these
--   body_max: a larger body is not in the answer, only its size
--   bytes_max: a claim ends once the bodies in the answer are larger together
local queue, bell = KEYS[1], KEYS[2]
local worker, lease_ms, want = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local read_aborts, passed_max, take_suspects = ARGV[4] == '1', tonumber(ARGV[5]), ARGV[6] == '1'
local body_max, bytes_max = tonumber(ARGV[7]), tonumber(ARGV[8])
local FIRST_ID = 9
local now = now_ms()
-- now, next due score (or 0), whether more is due, how often a process died under the last job;
-- then per job: id, body or its size, try, score, aborted at
local reply = {now, 0, 0, 0}
local claimed, passed, dropped, bytes, full = 0, 0, 0, 0, false

-- Claim a job that nobody holds, unless it is none or a suspect that is not wanted now.
local function take(id, score)
  local body = read('GET', JOB .. id)
  if body == nil or #id > ID_BYTES_MAX then
    dropped = dropped + 1
    set_aside(queue, id, body == nil and 'the body has a wrong type' or 'the id is too long')
    return
  end
  if not redis.call('SET', CLAIMS .. id, 1, 'NX', 'EX', RETRY_TTL_S) then
    local crashes = whole(read('GET', CLAIMS .. id))
    if not crashes or crashes < 1 or crashes > TRIES_MAX then
      redis.call('SET', CLAIMS .. id, 1, 'EX', RETRY_TTL_S)
    elseif not take_suspects then
      passed = passed + 1
      return
    else
      reply[4], full = crashes, true
    end
  end
  redis.call('SET', IN_PROGRESS .. id, worker, 'PX', lease_ms)
  redis.call('ZADD', queue, 'XX', now + lease_ms, id)
  if body and #body > body_max then
    body = #body
  elseif body then
    bytes = bytes + #body
    full = full or bytes > bytes_max
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = id, body, count_up(RETRY .. id)
  -- The abort stays until the job's end is stored.
  reply[n + 4], reply[n + 5] = score, read_aborts and read('ZSCORE', ABORTS, id) or false
  claimed = claimed + 1
end

if #ARGV >= FIRST_ID then
  for i = FIRST_ID, #ARGV do
    local id = ARGV[i]
    local score = redis.call('ZSCORE', queue, id)
    if not full and score and tonumber(score) <= now and not read('GET', IN_PROGRESS .. id) then
      take(id, score)
    end
  end
  return reply
end

-- Jobs that a stock arq worker runs stay where they are: it moves them by a difference to the score
-- it saw. They are stepped over, and so are suspects that are not wanted now.
local function look_at(id, score)
  local holder = read('GET', IN_PROGRESS .. id)
  local left = holder and redis.call('PTTL', IN_PROGRESS .. id)
  if not holder or left == -1 then
    take(id, score)  -- a lease without an end is nobody's
  elseif holder == STOCK or left <= 0 then
    passed = passed + 1
  else
    -- Back at the head while leased: an arq client aborts a job by giving it score 1.
    redis.call('ZADD', queue, 'XX', now + left, id)
  end
end

-- Members are read by rank, due or not: the first that is not due says when to look again, and an
-- idle worker's claim is one read.
local next_due  -- a score as Redis writes it; false where nothing is left
while claimed < want and not full and next_due == nil and passed + dropped < passed_max do
  local members = redis.call('ZRANGE', queue, passed, want - claimed + 2 * passed - 1, 'WITHSCORES')
  if #members == 0 then
    next_due = false
    break
  end
  for i = 1, #members, 2 do
    if tonumber(members[i + 1]) > now then
      next_due = members[i + 1]
    end
    if next_due or claimed == want or full then
      break
    end
    look_at(members[i], members[i + 1])
  end
end
if next_due == nil then
  local head = redis.call('ZRANGE', queue, passed, passed, 'WITHSCORES')
  next_due = head[2] or false
end

if next_due and tonumber(next_due) <= now then
  -- One ring wakes one worker; a worker that cannot take everything passes it on.
  if read('ZADD', bell, 0, 'ring') == nil then
    redis.call('DEL', bell)
    redis.call('ZADD', bell, 0, 'ring')
  end
  reply[3] = 1
else
  -- A ring follows the job it is for, so every ring until now has been answered.
  redis.call('DEL', bell)
  reply[2] = next_due or 0
end
return reply
