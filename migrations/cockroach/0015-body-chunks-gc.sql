-- needs: zoneConfiguration
ALTER TABLE {schema}.body_chunks CONFIGURE ZONE USING gc.ttlseconds = 600
