/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-link.h"

G_BEGIN_DECLS

/*
 * A radio as devices and jobs know it: advertisements come in, a connection gives a link. BlueZ
 * (mitherm-bluez.c) is its one implementation; nothing above this header knows BlueZ.
 */
#define MITHERM_TYPE_RADIO (mitherm_radio_get_type ())
G_DECLARE_INTERFACE (MithermRadio, mitherm_radio, MITHERM, RADIO, GObject)

/**
 * MithermAdvert:
 *
 * One advertisement heard. Everything is borrowed for the duration of the call.
 */
typedef struct
{
  const char *adapter; /* "hci0" */
  const char *address; /* "A4:C1:38:00:00:01" */
  gboolean random_address;
  const char *name; /* nullable */
  gint16 rssi;      /* dBm, 127: unknown */
  guint16 uuid;     /* of the service data, 0: none in this report */
  const guint8 *data;
  gsize len;
} MithermAdvert;

typedef void (*MithermAdvertFunc) (MithermRadio *radio, const MithermAdvert *advert,
                                   gpointer user_data);
/* Adapters came, went, or changed; discovery started or stopped. */
typedef void (*MithermRadioChangedFunc) (MithermRadio *radio, gpointer user_data);
/* A step of connecting, for a job's state: "connecting", "discovering". */
typedef void (*MithermConnectStepFunc) (const char *step, gpointer user_data);

struct _MithermRadioInterface
{
  GTypeInterface parent_iface;

  void (*set_callbacks) (MithermRadio *self, MithermAdvertFunc advert,
                         MithermRadioChangedFunc changed, gpointer user_data);
  /* (transfer full): names of usable (powered) adapters */
  char **(*dup_adapters) (MithermRadio *self);
  gboolean (*is_discovering) (MithermRadio *self);
  /* Wanted state of our own discovery; it is paused by itself around connects. */
  void (*set_discovery) (MithermRadio *self, gboolean on);
  /*
   * Connects to @address: by @adapter, or when NULL by the one that heard it best. Waits its turn
   * (one connect per adapter at a time), retries with back-off on transient errors, resolves the
   * services; gives a MiLink. Errors: MITHERM_ERROR (NotFound, LinkLost, Timeout, Busy) or
   * G_IO_ERROR_CANCELLED. @step is called as it goes.
   */
  void (*connect_async) (MithermRadio *self, const char *address, const char *adapter,
                         MithermConnectStepFunc step, gpointer step_data, GCancellable *cancellable,
                         GAsyncReadyCallback callback, gpointer user_data);
  MiLink *(*connect_finish) (MithermRadio *self, GAsyncResult *result, GError **error);
  /* Waits until the link of @address has dropped and @address may be connected again (bounded, 10
   * s). */
  void (*settle_async) (MithermRadio *self, const char *address, GCancellable *cancellable,
                        GAsyncReadyCallback callback, gpointer user_data);
  gboolean (*settle_finish) (MithermRadio *self, GAsyncResult *result, GError **error);
  /* Drops the host's cached services of @address after an image change. */
  void (*forget_async) (MithermRadio *self, const char *address, GCancellable *cancellable,
                        GAsyncReadyCallback callback, gpointer user_data);
  gboolean (*forget_finish) (MithermRadio *self, GAsyncResult *result, GError **error);
};

void mitherm_radio_set_callbacks (MithermRadio *self, MithermAdvertFunc advert,
                                  MithermRadioChangedFunc changed, gpointer user_data);
char **mitherm_radio_dup_adapters (MithermRadio *self);
gboolean mitherm_radio_is_discovering (MithermRadio *self);
void mitherm_radio_set_discovery (MithermRadio *self, gboolean on);
void mitherm_radio_connect_async (MithermRadio *self, const char *address, const char *adapter,
                                  MithermConnectStepFunc step, gpointer step_data,
                                  GCancellable *cancellable, GAsyncReadyCallback callback,
                                  gpointer user_data);
MiLink *mitherm_radio_connect_finish (MithermRadio *self, GAsyncResult *result, GError **error);
void mitherm_radio_settle_async (MithermRadio *self, const char *address, GCancellable *cancellable,
                                 GAsyncReadyCallback callback, gpointer user_data);
gboolean mitherm_radio_settle_finish (MithermRadio *self, GAsyncResult *result, GError **error);
void mitherm_radio_forget_async (MithermRadio *self, const char *address, GCancellable *cancellable,
                                 GAsyncReadyCallback callback, gpointer user_data);
gboolean mitherm_radio_forget_finish (MithermRadio *self, GAsyncResult *result, GError **error);

G_END_DECLS
