-- needs: zoneConfiguration
-- A head is rewritten by every flush and every old version is kept until it is collected.
ALTER TABLE {schema}.heads CONFIGURE ZONE USING gc.ttlseconds = 600
