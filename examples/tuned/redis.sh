#!/bin/sh
# redis under mixed load, then stopped: the load generator is left out of the figures. Arguments: keys.
port=$((20000 + $$ % 10000))
(
  until redis-cli -p "$port" ping > /dev/null 2>&1; do sleep 0.05; done
  redis-benchmark -p "$port" -q -n "$1" -r "$1" -d 100 -P 16 -t set,lpush,hset,zadd > /dev/null
  redis-benchmark -p "$port" -q -n "$1" -r "$1" -d 400 -P 16 -t set > /dev/null
  redis-cli -p "$port" shutdown nosave
) &
exec redis-server --port "$port" --save "" --appendonly no --daemonize no --loglevel warning
