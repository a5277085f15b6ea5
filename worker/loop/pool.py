"""Opening a connection pool from arq's settings, whether or not Redis answers yet."""

from typing import TYPE_CHECKING, Any, cast

from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

if TYPE_CHECKING:
    import arq.worker
    from arq.connections import RedisSettings


def open_pool(worker: "arq.worker.Worker", settings: "RedisSettings") -> ArqRedis:
    """Return a pool like that of `arq.create_pool`, but one that connects when it is first used.

    Sentinel pools get the same options as others; arq gives them none but `ssl`.
    """
    pool = _sentinel_pool(settings) if settings.sentinel else ArqRedis(**_address(settings))
    pool.job_serializer = worker.job_serializer
    pool.job_deserializer = worker.job_deserializer
    pool.default_queue_name = worker.queue_name
    pool.expires_extra_ms = worker.expires_extra_ms
    return pool


def open_second_pool(worker: "arq.worker.Worker") -> ArqRedis | None:
    """Return a pool for another event loop than the worker's, where one can be made."""
    if worker.redis_settings is not None:
        return open_pool(worker, worker.redis_settings)
    given: ArqRedis | None = worker.pool  # arq declares it as always there
    return None if given is None else _clone_pool(given)


def _address(settings: "RedisSettings") -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "unix_socket_path": settings.unix_socket_path,
        **_options(settings),
        "ssl": settings.ssl,
        "ssl_keyfile": settings.ssl_keyfile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_cert_reqs": settings.ssl_cert_reqs,
        "ssl_ca_certs": settings.ssl_ca_certs,
        "ssl_ca_data": settings.ssl_ca_data,
        "ssl_check_hostname": settings.ssl_check_hostname,
        "max_connections": settings.max_connections,
    }


def _options(settings: "RedisSettings") -> dict[str, Any]:
    return {
        "db": settings.database,
        "username": settings.username,
        "password": settings.password,
        "encoding": "utf8",
        "socket_connect_timeout": settings.conn_timeout,
        "socket_keepalive": True,
        "retry": settings.retry,
        "retry_on_timeout": settings.retry_on_timeout,
        "retry_on_error": settings.retry_on_error,
    }


def _sentinel_pool(settings: "RedisSettings") -> ArqRedis:
    if isinstance(settings.host, str):
        raise RuntimeError(  # noqa: TRY004 - as arq raises it
            "str provided for 'host' but 'sentinel' is true; list of sentinels expected"
        )
    options = _options(settings)
    sentinel = Sentinel(settings.host, ssl=settings.ssl, **options)  # type: ignore[no-untyped-call]
    pool = sentinel.master_for(settings.sentinel_master, redis_class=ArqRedis)
    return cast("ArqRedis", pool)


def _clone_pool(pool: ArqRedis) -> ArqRedis | None:
    """Return a client of the same server for another event loop; None for a Sentinel pool."""
    connections = pool.connection_pool
    if isinstance(connections, SentinelConnectionPool):
        return None
    own = ConnectionPool(
        connection_class=connections.connection_class, **connections.connection_kwargs
    )
    return ArqRedis(own)
