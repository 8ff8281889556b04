//! The least that a server can do: answer a constant. What the kernel takes for that is nobody's to save, so hcf is
//! measured in multiples of it.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketFlags, SocketType, sockopt,
};

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    /// One line, and the end of the connection.
    Agent,
    /// One answer after the other, on kept connections.
    Http,
}

impl Floor {
    pub(crate) const ALL: [Self; 2] = [Self::Agent, Self::Http];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Agent => "floor-agent",
            Self::Http => "floor-http",
        }
    }

    const fn answer(self) -> &'static [u8] {
        match self {
            Self::Agent => b"up ready 100%\n",
            // As long as what hcf says of a service that is up.
            Self::Http => {
                b"HTTP/1.1 200 OK\r\nContent-Type: application/health+json\r\nContent-Length: 134\r\n\
                  Cache-Control: no-store\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n\
                  {\"status\":\"pass\",\"output\":\"10 of 4 storage servers usable\",\"checks\":{\"servers\":[{\"observedValue\":10,\"status\":\"pass\",\"output\":\"..........\"}]}}"
            }
        }
    }

    /// Prints its address and answers until killed. Its waiting is level-triggered, so that a connection that says
    /// nothing costs nothing, and one that has spoken by the time it is accepted costs four calls of the kernel.
    pub(crate) fn serve(self) -> ! {
        let listener = net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        sockopt::set_socket_reuseaddr(&listener, true).unwrap();
        net::bind(&listener, &SocketAddrV4::new([127, 0, 0, 1].into(), 0)).unwrap();
        net::listen(&listener, 4096).unwrap();
        let address = SocketAddrV4::try_from(net::getsockname(&listener).unwrap()).unwrap();
        println!("{address}");
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &listener, EventData::new_u64(0), EventFlags::IN).unwrap();
        let mut open: Vec<Option<OwnedFd>> = Vec::new();
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            epoll::wait(&epoll, spare_capacity(&mut events), None).unwrap();
            for event in &events {
                let place = event.data.u64();
                if place == 0 {
                    while let Ok(stream) =
                        net::accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
                    {
                        if self.talk(&stream) {
                            let place = usize::try_from(stream.as_raw_fd()).unwrap();
                            let data = EventData::new_u64(place as u64);
                            epoll::add(&epoll, &stream, data, EventFlags::IN).unwrap();
                            open.resize_with(open.len().max(place + 1), || None);
                            open[place] = Some(stream);
                        }
                    }
                } else {
                    let stream = &mut open[usize::try_from(place).unwrap()];
                    // Closing it takes it out of the set.
                    *stream = stream.take().filter(|stream| self.talk(stream));
                }
            }
        }
    }

    /// Answers what was said; says whether more may come.
    fn talk(self, stream: &OwnedFd) -> bool {
        let mut heard = [0; 1024];
        match net::recv(stream, &mut heard, RecvFlags::empty()) {
            Ok((0, _)) => false,
            Ok(_) => {
                let sent = net::send(stream, self.answer(), SendFlags::NOSIGNAL);
                sent.is_ok() && self == Self::Http
            }
            Err(e) => e == Errno::AGAIN,
        }
    }
}
