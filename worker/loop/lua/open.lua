-- Count the claim of a suspect that is about to run, so that it is known if the process dies.
--
-- ARGV: worker, id, try
-- Returns whether the worker still holds the job (1 or 0); if not, it must not run it.
if not holds(ARGV[1], ARGV[2], ARGV[3]) then
  return 0
end
count_up(CLAIMS .. ARGV[2])
return 1
