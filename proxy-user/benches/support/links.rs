//! Requests to rtnetlink without a program between: when one has been sent, it has been done.

use anyhow::{Context as _, Result, bail};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use xtask::cluster::Namespace;

/// Changes the devices of a namespace.
pub(crate) struct Links(Socket);

impl Links {
    /// In this namespace, from whatever thread.
    pub(crate) fn open(place: &Namespace) -> Result<Self> {
        let socket = place.run(|| Socket::new(NETLINK_ROUTE))?;
        Ok(Self(socket.context("opening rtnetlink")?))
    }

    /// Creates a device.
    pub(crate) fn add(&self, link: LinkMessage) -> Result<()> {
        let message = RouteNetlinkMessage::NewLink(link);
        self.request(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Changes a device.
    pub(crate) fn set(&self, link: LinkMessage) -> Result<()> {
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    fn request(&self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io().into()),
            other => bail!("rtnetlink answers {other:?}"),
        }
    }
}
