# What each layer is made of; a layer uses those named to its right only.
layer(common
	SRC  lock.c error.c log.c metrics.c crash.c crew.c detached.c config.c config_parse.c loop.c
	     size.c stream.c stream_tcp.c units.c
	LIBS PkgConfig::UV PkgConfig::JANSSON Threads::Threads)
layer(index
	SRC  keys.c value.c record.c body.c plan.c recall.c index.c blocks.c walk.c scan.c extents.c bodies.c
	     collect.c request.c
	     check.c check_names.c check_rest.c check_sessions.c
	     names.c place.c writers.c lose.c evict.c dir.c rename.c object.c publish.c xattr.c acl.c keep.c
	     watch.c kv.c view.c ordered.c mem.c lend.c
	     lmdb.c lmdb_group.c lmdb_read.c lmdb_rows.c lmdb_env.c lmdb_guard.c fault.c
	USES common
	LIBS PkgConfig::LMDB PkgConfig::SODIUM)
layer(engine
	SRC  engine.c store.c folder.c lockfile.c sizes.c memory.c rebuild.c refs.c drop.c check.c
	     pool.c buddy.c segment.c policy.c ghosts.c expiry.c dirs.c uses.c uses_fill.c uses_check.c victim.c emptied.c evict_inbox.c evict.c ask.c scrub.c node_local.c node_fault.c xfer.c transport_local.c transport_fault.c
	     wire.c wire_kv.c wire_slices.c auth.c conn.c conn_in.c conn_out.c holds.c serve_open.c serve_alloc.c serve_recall.c lanes.c ways.c doors.c session.c server.c
	     remote.c remote_session.c remote_rdma.c remote_lane.c slots.c transport_tcp.c nics.c transport_rdma.c transport_auto.c index_remote.c node_remote.c far_ask.c far_stock.c far_take.c peer.c probe.c
	     file.c regain.c register.c open.c load.c map.c map_check.c range.c task.c work.c fetch.c put.c
	     read.c write.c edit.c copy.c seal.c parts.c publish.c
	     rdma_port.c rdma_where.c rdma_path.c ${RDMA_SRC} credits.c stream_rdma.c staging.c
	     disk.c disk_fault.c tier.c tier_log.c tier_journal.c tier_replay.c tier_body.c tier_clear.c tier_out.c tier_back.c tier_scrub.c
	USES index common
	LIBS PkgConfig::XXHASH PkgConfig::SODIUM PkgConfig::URING Threads::Threads ${RDMA_LIBS})
layer(fs
	SRC  session.c init.c mount.c worker.c awake.c req.c caller.c path.c inode.c access.c lately.c lines.c away.c watched.c waits.c names.c attr.c
	     xattr.c keep.c presence.c layout.c ioctl.c dir.c open.c io.c notify.c control.c
	USES engine index common
	LIBS PkgConfig::FUSE3 Threads::Threads)
