-- All users on one key; each repeats 100 x (PUT value=i, GET), then DELETE.  A 404 is a right answer here: another
-- user's DELETE came first.
--
--   ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \
--     wrk -t3 -c96 -d10s --latency -s benchmarks/wrk/same-data.lua http://127.0.0.1:8001

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local users = dofile(here .. "users.lua")

users.with_one_key("same-data", users.MIXED)
