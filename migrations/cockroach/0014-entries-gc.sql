-- needs: zoneConfiguration
-- Trimmed entries are tombstones until they are collected; a log turns over in minutes, the default keeps hours.
ALTER TABLE {schema}.entries CONFIGURE ZONE USING gc.ttlseconds = 600
